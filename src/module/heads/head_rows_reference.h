// Norm and rotation of one row, a head of one token, in double and plain loops, with what a correct
// computation in the module's dtype may be off by; forward and backward. u is the unit roundoff,
// e() the error of a number, errors of the numbers of a row taken as independent:
//   norm      y = x r g, r = 1 / sqrt(m), m = mean(x^2) + eps:
//               e(r) / r = sqrt(sum (x e(x))^2) / (D m) + u (sqrt(D) / 2 + 3)
//               e(y) = |g| r e(x) + |y| (e(r) / r + 2 u)
//   rotation  a' = a cos - b sin: e = |cos| e(a) + |sin| e(b) + (3 u + e(angle)) (|a| + |b|),
//             e(angle) = |angle| 2^-51 + |position| 2^-62
// The rotation is multiplied out in long double, from frequencies of powl.
#pragma once

#include <cstdint>
#include <vector>

#include <polyhead/rope.h>
#include "module/attention_parameters.h"

namespace polyhead {

struct RowNumber {
  double value = 0, error = 0;
};
using RowNumbers = std::vector<RowNumber>;  // [head_dim]

// weight [head_dim], exact.
void norm_reference(RowNumbers& row, const double* weight, double epsilon, double unit);
void rotate_reference(RowNumbers& row, const Rope& rope, int64_t position, double unit);

// Both, as the module has them; norm [head_dim], null: none.
void transform_reference(RowNumbers& row, const AttentionSizes& sizes, const double* norm,
                         int64_t position, double unit);

// row: d_y, then d_x. `x`: the norm's argument. d_weight [head_dim]: the row's share.
void norm_backward_reference(RowNumbers& row, const RowNumbers& x, const double* weight,
                             double epsilon, double unit, RowNumbers* d_weight);
void rotate_backward_reference(RowNumbers& row, const Rope& rope, int64_t position, double unit);

}  // namespace polyhead
