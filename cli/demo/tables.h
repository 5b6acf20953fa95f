// The demo's tables as text.
#pragma once

#include <string>
#include <vector>

#include <polyhead/tensor_view.h>
#include "demo/head_roles.h"
#include "terminal.h"

namespace polyhead::cli {

// vectors [n, width], each of length 1 -> the cosine of each pair, the lower triangle, and the
// closest pair in words. Empty for a single sentence.
std::string similarity_text(const Tensor& vectors, const Terminal& terminal);

// One line a head, layer by layer, and what the columns mean.
std::string heads_text(const std::vector<std::vector<HeadSummary>>& layers,
                       const Terminal& terminal);

// For each kind of token, the head that gives it most.
std::string clearest_heads_text(const std::vector<std::vector<HeadSummary>>& layers);

}  // namespace polyhead::cli
