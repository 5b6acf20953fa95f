// What one head does, in numbers.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include <polyhead/tensor_view.h>

namespace polyhead {

// Means over the query rows that see anything. The last five compare positions, query i with key j,
// and mean something where queries and keys are the same tokens.
struct HeadStats {
  double entropy_bits = 0;   // 2^entropy keys looked at evenly have it
  double mean_distance = 0;  // |i - j|, weighted
  double previous = 0;       // weight on key i - 1
  double next = 0;           // weight on key i + 1
  double diagonal = 0;       // weight on key i
  double first = 0;          // weight on key 0
};

// weights [q_len, kv_len], float32 or float64, any strides; NaN counts as 0. Where no row sees
// anything the measures are NaN.
HeadStats head_stats(const ConstTensorView& weights);

// How far a head is an induction head: from a token that stood earlier in the row, the weight on
// what followed it there, as long as that lies before the token itself; summed over the earlier
// places, and the mean over the tokens that have one and see anything. NaN where there are none.
// weights as above, square; `tokens` name its rows and columns.
double induction_score(const ConstTensorView& weights, std::span<const std::string> tokens);

// One element of a float32 or float64 [q_len, kv_len] view.
double weight_at(const ConstTensorView& weights, int64_t query, int64_t key);

}  // namespace polyhead
