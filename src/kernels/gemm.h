// out[m][n] = sum_k a[m][k] * weight[n][k] + bias[n]: the projections of attention.
//
// a [M, K] and out [M, N], rows anywhere (RowMap), any column stride; out's columns may stand in
// groups, one per head. weight [N, K] packed once into panels of 192 bytes' worth of output
// columns, [N / panel][K][panel], the same layout for every ISA; bias padded to whole panels.
// Vector lanes are output columns, rows of a are broadcasts: 8 rows x 3 vectors = 24 accumulators,
// 3 + 8 loads for 24 FMAs.
// Accumulation in T: one chain of fused multiply-adds per element over k in order, never split,
// the bias last: an element's bits depend on its row, weight row and bias alone. (A chain started
// at the bias rounds each small partial sum to the bias's last place: up to 9 times torch's error
// where the bias outweighs the products, tests/parity.)
// Cost 2 M N K flops; the panel (K * 192 bytes) streams from L2 once for each block of 8 rows.
#pragma once

#include <cstddef>

#include "simd/isa.h"

namespace polyhead {

template <class T>
inline constexpr size_t kPanel = 192 / sizeof(T);

// Row m of a [outer, inner, columns] tensor at data + (m / inner) * outer_stride + (m % inner) *
// inner_stride.
template <class T>
struct RowMap {
  T* data = nullptr;
  size_t inner = 1;
  ptrdiff_t outer_stride = 0, inner_stride = 0, column_stride = 1;

  T* row(size_t m) const {
    return data + static_cast<ptrdiff_t>(m / inner) * outer_stride +
           static_cast<ptrdiff_t>(m % inner) * inner_stride;
  }
};

// Rows [row_begin, row_end) and panels [panel_begin, panel_end) of the product; of its columns
// only [first, last) are wanted: out's first is column `first`.
template <class T>
struct GemmBlock {
  RowMap<const T> a;
  RowMap<T> out;
  size_t group = 1;            // columns that lie out.column_stride apart;
  ptrdiff_t group_stride = 0;  // the next so many lie here
  const T* packed = nullptr;   // [panels, K, kPanel]
  const T* bias = nullptr;     // [panels * kPanel]
  size_t k = 0, first = 0, last = 0;
  size_t row_begin = 0, row_end = 0, panel_begin = 0, panel_end = 0;

  ptrdiff_t column_offset(size_t column) const {
    const size_t c = column - first;
    return static_cast<ptrdiff_t>(c / group) * group_stride +
           static_cast<ptrdiff_t>(c % group) * out.column_stride;
  }
};

// weight[n][k] at weight[n * row_stride + k * column_stride] -> panels of packed, zeros past N.
template <class T>
struct PackBlock {
  const T* weight = nullptr;
  ptrdiff_t row_stride = 0, column_stride = 1;
  size_t n = 0, k = 0;
  T* packed = nullptr;  // [panels, K, kPanel]
  size_t panel_begin = 0, panel_end = 0;
};

template <class T>
struct GemmKernel {
  void (*run)(const GemmBlock<T>& block) noexcept;
  void (*pack)(const PackBlock<T>& block) noexcept;
};

template <class T>
GemmKernel<T> gemm_kernel(Isa isa);

inline size_t num_panels(size_t n, size_t panel) { return (n + panel - 1) / panel; }

}  // namespace polyhead
