// What stands between a projection and the scores, in place, row by row; a row is one head of one
// token, x [head_dim]:
//
//   norm    y[d] = x[d] * inverse * weight[d],  inverse = 1 / sqrt(mean of x[d]^2 + epsilon)
//   rotate  for each pair (a, b) of y's first rotary_dim numbers, by the token's angle for it:
//             a' = a cos - b sin,  b' = b cos + a sin
//
// Either may be left out. A pair is (d, d + rotary_dim / 2), or (2 d, 2 d + 1) where interleaved.
// Accumulation in T. Sums over a row are sixteen chains of fused multiply-adds, of the numbers d
// with the same d mod 16, folded in halves: the same bits whatever the width of the vectors.
// a' = fma(a, cos, -(b * sin)), b' = fma(b, cos, a * sin).
// The backward is that of the rotation, whose sines the caller has negated, then of the norm:
//   d_weight[d] += d_y[d] x^[d],  g = d_y weight,  d_x = inverse (g - x^ mean(g x^)),
//   x^ = x inverse
// A row of d_y that is all zero has d_x = 0 and adds nothing, be x NaN: no query saw it.
// Cost of a row: 6 flops a number to rotate, 4 to norm; it is read and written once.
// The same in double: module/heads/head_rows_reference.h.
#pragma once

#include <cstddef>

#include "simd/isa.h"

namespace polyhead {

// The rows of one position: batch x heads of them.
template <class T>
struct HeadRows {
  const T* from = nullptr;
  T* to = nullptr;  // may be `from`
  size_t batch = 0, heads = 0, head_dim = 0;
  ptrdiff_t from_batch = 0, from_head = 0, to_batch = 0, to_head = 0;  // strides
  const T* norm = nullptr;                                             // [head_dim]; null: none
  T epsilon = 0;
  // [rotary_dim / 2], or, interleaved, [rotary_dim]: each twice, the first of two sines negated.
  const T *cosine = nullptr, *sine = nullptr;  // null: no rotation
  size_t rotary_dim = 0;
  bool interleaved = false;
};

// `rows`: those of the forward, from which the norm's x is read; nothing is written there.
template <class T>
struct HeadRowsBackward {
  HeadRows<T> rows;
  T* gradient = nullptr;  // d_y, then d_x
  ptrdiff_t gradient_batch = 0, gradient_head = 0;
  T* d_norm = nullptr;  // [head_dim], added to; with a norm
};

template <class T>
struct HeadRowsKernel {
  void (*forward)(const HeadRows<T>& rows) noexcept;
  void (*backward)(const HeadRowsBackward<T>& rows) noexcept;
};

template <class T>
HeadRowsKernel<T> head_rows_kernel(Isa isa);

}  // namespace polyhead
