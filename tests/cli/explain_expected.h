// What `explain` must show, worked out from the files alone: plain loops over the state dict, no
// code of the library's.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include <polyhead/tensor_view.h>
#include "bounded.h"

namespace polyhead::cli {

struct Numbers {
  std::vector<int64_t> shape;
  std::vector<Bounded> numbers;  // row-major
};

Numbers numbers_of_tensor(const ConstTensorView& tensor);  // exact

struct Given {
  std::map<std::string, Numbers> parameters;  // by their names in the state dict
  int64_t num_heads = 1;
  Numbers query, key, value;  // [len, features] of the item that is shown
  bool other_key = false, other_value = false, zero_attn = false, nan_rows = false;
  // What the masks add to the score of (head, query, key); null: there are none.
  std::function<double(int64_t, int64_t, int64_t)> mask = {};
};

// By the names of the page's matrices, all heads, queries and keys: query, key, value, q, k, v,
// extra_k, extra_v, scores, scaled, mask, masked, weights, seen, heads, out, w_q, b_q, ...
using Expected = std::map<std::string, Numbers>;
Expected expected_steps(const Given& given);

}  // namespace polyhead::cli
