// Layer normalisation of rows: normal = (x - mean) * scale, y = normal * weight + bias.
//
// mean and scale are computed anew in the backward: its row of x is in the cache anyway.
//   d_normal = d_y * weight
//   d_x = scale * (d_normal - mean(d_normal) - normal * mean(d_normal * normal))
//   d_weight = sum over rows of d_y * normal, d_bias = sum over rows of d_y
// In T throughout, sums in the order of row_sum.body.h; sums over rows are chains in row order.
// Memory-bound: a row of x is read once, and 2 or 3 times more where it lies in the first cache.
#pragma once

#include <cstddef>

namespace polyhead::nn {

template <class T>
struct LayerNormBlock {
  size_t rows = 0, width = 0;
  T epsilon = 0;
  const T* x = nullptr;       // [rows, width]
  const T* weight = nullptr;  // [width]
  const T* bias = nullptr;    // [width], forward
  T* y = nullptr;             // [rows, width], forward; may be x
  const T* d_y = nullptr;     // [rows, width], backward
  T* d_x = nullptr;           // [rows, width] or null, backward; may be d_y
  T* d_weight = nullptr;      // [width], backward: the sums so far
  T* d_bias = nullptr;        // [width], backward
};

template <class T>
struct LayerNormKernel {
  void (*forward)(const LayerNormBlock<T>& block) noexcept;
  void (*backward)(const LayerNormBlock<T>& block) noexcept;
};

}  // namespace polyhead::nn
