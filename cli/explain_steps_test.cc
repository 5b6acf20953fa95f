#include "explain_steps.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <sstream>

namespace polyhead::cli {
namespace {

// Whole lines, without their indentation.
std::set<std::string> lines_of(const std::string& file) {
  std::ifstream stream(std::string(POLYHEAD_SOURCE_TREE) + "/" + file);
  std::set<std::string> lines;
  for (std::string line; std::getline(stream, line);) {
    const size_t begin = line.find_first_not_of(' ');
    if (begin != std::string::npos) lines.insert(line.substr(begin));
  }
  return lines;
}

TEST(ExplainSteps, EveryQuotedLineStandsInItsFile) {
  for (size_t n = 0; n < kSteps; ++n) {
    const auto step = static_cast<Step>(n);
    const std::vector<CodeLine> quoted = cpp_lines(step);
    EXPECT_FALSE(quoted.empty()) << step_title(step);
    for (const CodeLine& line : quoted) {
      EXPECT_TRUE(lines_of(line.file).contains(line.code)) << line.file << ": " << line.code;
    }
  }
}

TEST(ExplainSteps, OnlyTheFullWidthConcatenatesToMoreThanTheEmbedding) {
  for (size_t n = 0; n < kSteps; ++n) {
    const auto step = static_cast<Step>(n);
    EXPECT_EQ(python_line(step, true) != python_line(step, false), step == Step::kConcatenate);
  }
}

}  // namespace
}  // namespace polyhead::cli
