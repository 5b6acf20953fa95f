// The nine steps of `explain`: their titles, and the lines of code that do them.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "report/explain_page.h"

namespace polyhead::cli {

enum class Step {
  kProject,
  kSplit,
  kScores,
  kScale,
  kMask,
  kSoftmax,
  kWeightedSum,
  kConcatenate,
  kProjectOut
};
inline constexpr size_t kSteps = 9;

const char* step_title(Step step);  // "Split into heads"

// The line of the from-scratch class. With `full_width`, of its variant whose heads are as wide as
// the embedding.
std::string python_line(Step step, bool full_width);
std::string python_projection(const std::string& letter);  // of "q", "k" or "v"

// Lines of the double reference, as they stand in the source tree.
std::vector<CodeLine> cpp_lines(Step step);

}  // namespace polyhead::cli
