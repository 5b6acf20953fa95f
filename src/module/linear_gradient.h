// The memory of a weight's gradient, for callers who must not fail half way.
#pragma once

#include <cstdint>

#include <polyhead/linear.h>

namespace polyhead {

// What linear_weight_gradient borrows for x [rows, in_features] and d_y [rows, out_features], of
// its thread's workspaces. Throws std::bad_alloc if the bytes cannot be counted.
size_t linear_weight_gradient_bytes(DType dtype, int64_t rows, int64_t in_features,
                                    int64_t out_features);

}  // namespace polyhead
