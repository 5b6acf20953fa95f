// gelu(x) = x * Phi(x) and its derivative Phi(x) + x * phi(x), element by element.
//
// Phi and phi are the normal distribution and its density. For z = |x|
//   phi(z) = exp(-z^2 / 2) / sqrt(2 pi),  1 - Phi(z) = exp(-z^2 / 2) * t * P(t),  t = 1 / (1 + p z)
// P a polynomial (tools/normal_coefficients.py), so that the lower tail keeps its relative accuracy
// but for the rounding of z^2, and a half is a half at 0. No erf of a C library, whose bits depend
// on the machine.
#pragma once

#include <cstddef>

namespace polyhead::nn {

template <class T>
struct GeluKernel {
  void (*forward)(const T* x, size_t count, T* y) noexcept;
  // d_x = d_y * derivative
  void (*backward)(const T* x, const T* d_y, size_t count, T* d_x) noexcept;
};

}  // namespace polyhead::nn
