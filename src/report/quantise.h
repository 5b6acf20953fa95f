// Weights as the page stores them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include <polyhead/tensor_view.h>

namespace polyhead {

// 16 bits linear: w = q / 65535. 8 bits of the root: w = (q / 255)^2, fine near 0 where most are.
enum class WeightCode { kLinear16, kRoot8 };

struct QuantiseLoss {
  double worst = 0;  // largest |stored - exact|
  int64_t nan = 0;   // NaN weights, stored as 0
};

// weights [heads, q_len, kv_len], any strides -> little-endian codes, row-major. Adds to *loss.
std::string quantise(const ConstTensorView& weights, WeightCode code, QuantiseLoss* loss);

}  // namespace polyhead
