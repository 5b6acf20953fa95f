// out[m][n] = sum_k a[m][k] * weight[n][k] + bias[n]: the projections of attention, and with other
// operands their gradients (module/linear_gradient.cc).
//
// a [M, K] and out [M, N], each axis in two steps (Axis). weight [N, K] packed into panels of 192
// bytes' worth of output columns, [N / panel][K][panel], the same layout for every ISA; bias padded
// to whole panels.
// Vector lanes are output columns, rows of a are broadcasts: 8 rows x 3 vectors = 24 accumulators,
// 3 + 8 loads for 24 FMAs.
// Accumulation in T: one chain of fused multiply-adds per element over k in order, never split,
// the bias last: an element's bits depend on its row, weight row and bias alone. (A chain started
// at the bias rounds each small partial sum to the bias's last place: up to 9 times torch's error
// where the bias outweighs the products, tests/parity.) A chain may stop at any k and go on later
// from the number it had reached: the same roundings.
// Cost 2 M N K flops; the panel (K * 192 bytes) streams from L2 once for each block of 8 rows.
#pragma once

#include <cstddef>

#include "simd/isa.h"

namespace polyhead {

template <class T>
inline constexpr size_t kPanel = 192 / sizeof(T);

// Index i of an axis lies at (i / inner) * outer + (i % inner) * step: two dimensions of a tensor,
// [batch, len] or [groups, width], walked as one.
struct Axis {
  size_t inner = 1;
  ptrdiff_t outer = 0, step = 1;

  ptrdiff_t operator()(size_t i) const {
    return static_cast<ptrdiff_t>(i / inner) * outer + static_cast<ptrdiff_t>(i % inner) * step;
  }
};

template <class T>
struct Matrix {
  T* data = nullptr;
  Axis rows, columns;

  T* row(size_t m) const { return data + rows(m); }
  Matrix transposed() const { return {data, columns, rows}; }
};

// Rows [row_begin, row_end) and panels [panel_begin, panel_end) of the product; of its columns
// only [first, last) are wanted: out's first is column `first`.
template <class T>
struct GemmBlock {
  Matrix<const T> a;          // [M, K]
  Matrix<T> out;              // [M, last - first]
  const T* packed = nullptr;  // [panels, packed_rows, kPanel], of whose rows the first K are used
  size_t packed_rows = 0;
  const T* bias = nullptr;  // [panels * kPanel]; null: none
  bool add = false;         // to what out holds
  size_t k = 0, first = 0, last = 0;
  size_t row_begin = 0, row_end = 0, panel_begin = 0, panel_end = 0;
  // Chains too long for one pass over k are parked between the passes.
  T* parked = nullptr;  // [panels, parked_rows, kPanel]
  size_t parked_rows = 0;
  bool begins = true, ends = true;
};

// weight[n][first_k + k] -> panels of packed, zeros past N.
template <class T>
struct PackBlock {
  Matrix<const T> weight;  // [N, first_k + K or more]
  size_t n = 0, first_k = 0, k = 0;
  T* packed = nullptr;  // [panels, packed_rows, kPanel], of whose rows the first K are written
  size_t packed_rows = 0;
  size_t panel_begin = 0, panel_end = 0;
};

template <class T>
struct GemmKernel {
  void (*run)(const GemmBlock<T>& block) noexcept;
  void (*pack)(const PackBlock<T>& block) noexcept;
  // sums [kPanel] += each row of panel [rows, kPanel], in order
  void (*add_rows)(const T* panel, size_t rows, T* sums) noexcept;
};

template <class T>
GemmKernel<T> gemm_kernel(Isa isa);

inline size_t num_panels(size_t n, size_t panel) { return (n + panel - 1) / panel; }

}  // namespace polyhead
