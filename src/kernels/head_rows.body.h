// Norm and rotation of the rows of one position, forward and backward.
#include "kernels/row.body.h"

inline constexpr int kRowChains = 16;
inline constexpr int kInterleaved = 1;

// The sum of a[d] * b[d] in sixteen chains.
template <class T>
POLYHEAD_INLINE T chained_dot(const T* a, const T* b, size_t count) {
  constexpr int kVectors = kRowChains / kLanes<T>;
  constexpr auto kStep = static_cast<size_t>(kLanes<T>);
  Vec<T> sums[kVectors] = {};
  for (size_t d = 0; d < count;) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v, d += kStep) {
      if (d >= count) break;
      const size_t n = at_most(count - d, kStep);
      sums[v] = fma(load_row(a + d, 1, n), load_row(b + d, 1, n), sums[v]);
    }
  }
  T chains[kRowChains];
  for (int v = 0; v < kVectors; ++v) store(chains + v * kLanes<T>, sums[v]);
  for (int half = kRowChains / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) chains[i] += chains[i + half];
  }
  return chains[0];
}

template <class T>
POLYHEAD_INLINE T inverse_norm(const T* x, const HeadRows<T>& rows) {
  const T mean = chained_dot(x, x, rows.head_dim) / static_cast<T>(rows.head_dim);
  return T{1} / std::sqrt(mean + rows.epsilon);
}

template <class T>
POLYHEAD_INLINE void norm_row(const T* x, T* y, const HeadRows<T>& rows) {
  constexpr auto kStep = static_cast<size_t>(kLanes<T>);
  const Vec<T> inverse = splat(inverse_norm(x, rows));
  for (size_t d = 0; d < rows.head_dim; d += kStep) {
    const size_t n = at_most(rows.head_dim - d, kStep);
    store_row(y + d, 1, load_row(x + d, 1, n) * inverse * load_row(rows.norm + d, 1, n), n);
  }
}

template <class T, size_t... kLane>
POLYHEAD_INLINE Vec<T> with_neighbours_swapped(Vec<T> v, std::index_sequence<kLane...>) {
  return __builtin_shufflevector(v, v, (static_cast<int>(kLane) ^ kInterleaved)...);
}

template <class T>
POLYHEAD_INLINE void rotate_neighbours(T* y, const HeadRows<T>& rows) {
  constexpr auto kStep = static_cast<size_t>(kLanes<T>);
  for (size_t d = 0; d < rows.rotary_dim; d += kStep) {
    const size_t n = at_most(rows.rotary_dim - d, kStep);
    const Vec<T> x = load_row(y + d, 1, n);
    const Vec<T> other = with_neighbours_swapped<T>(x, std::make_index_sequence<kLanes<T>>());
    const Vec<T> turned = other * load_row(rows.sine + d, 1, n);
    store_row(y + d, 1, fma(x, load_row(rows.cosine + d, 1, n), turned), n);
  }
}

template <class T>
POLYHEAD_INLINE void rotate_halves(T* y, const HeadRows<T>& rows) {
  constexpr auto kStep = static_cast<size_t>(kLanes<T>);
  const size_t half = rows.rotary_dim / 2;
  for (size_t d = 0; d < half; d += kStep) {
    const size_t n = at_most(half - d, kStep);
    const Vec<T> a = load_row(y + d, 1, n), b = load_row(y + half + d, 1, n);
    const Vec<T> cosine = load_row(rows.cosine + d, 1, n), sine = load_row(rows.sine + d, 1, n);
    store_row(y + d, 1, fma(a, cosine, -(b * sine)), n);
    store_row(y + half + d, 1, fma(b, cosine, a * sine), n);
  }
}

template <class T>
POLYHEAD_INLINE void rotate_row(T* y, const HeadRows<T>& rows) {
  if (rows.cosine == nullptr) return;
  rows.interleaved ? rotate_neighbours(y, rows) : rotate_halves(y, rows);
}

template <class T>
void head_rows(const HeadRows<T>& rows) noexcept {
  for (size_t b = 0; b < rows.batch; ++b) {
    const T* from = rows.from + static_cast<ptrdiff_t>(b) * rows.from_batch;
    T* to = rows.to + static_cast<ptrdiff_t>(b) * rows.to_batch;
    for (size_t h = 0; h < rows.heads; ++h, from += rows.from_head, to += rows.to_head) {
      if (rows.norm != nullptr) norm_row(from, to, rows);
      rotate_row(to, rows);
    }
  }
}

template <class T>
POLYHEAD_INLINE bool all_zero(const T* row, size_t count) {
  bool any = false;
  for (size_t d = 0; d < count; ++d) any |= row[d] != 0;
  return !any;
}

// d: d_y, then d_x.
template <class T>
POLYHEAD_INLINE void norm_row_backward(const T* x, T* d, const HeadRowsBackward<T>& backward) {
  constexpr auto kStep = static_cast<size_t>(kLanes<T>);
  const HeadRows<T>& rows = backward.rows;
  const T scale = inverse_norm(x, rows);
  const Vec<T> inverse = splat(scale);
  for (size_t i = 0; i < rows.head_dim; i += kStep) {
    const size_t n = at_most(rows.head_dim - i, kStep);
    const Vec<T> d_y = load_row(d + i, 1, n), unit = load_row(x + i, 1, n) * inverse;
    T* d_norm = backward.d_norm + i;
    store_row(d_norm, 1, fma(d_y, unit, load_row(d_norm, 1, n)), n);
    store_row(d + i, 1, d_y * load_row(rows.norm + i, 1, n), n);
  }
  const T mean = chained_dot(d, x, rows.head_dim) * scale / static_cast<T>(rows.head_dim);
  const Vec<T> along = splat(-mean);
  for (size_t i = 0; i < rows.head_dim; i += kStep) {
    const size_t n = at_most(rows.head_dim - i, kStep);
    const Vec<T> unit = load_row(x + i, 1, n) * inverse;
    store_row(d + i, 1, fma(along, unit, load_row(d + i, 1, n)) * inverse, n);
  }
}

template <class T>
void head_rows_backward(const HeadRowsBackward<T>& backward) noexcept {
  const HeadRows<T>& rows = backward.rows;
  for (size_t b = 0; b < rows.batch; ++b) {
    const T* x = rows.from + static_cast<ptrdiff_t>(b) * rows.from_batch;
    T* d = backward.gradient + static_cast<ptrdiff_t>(b) * backward.gradient_batch;
    for (size_t h = 0; h < rows.heads; ++h, x += rows.from_head, d += backward.gradient_head) {
      if (all_zero(d, rows.head_dim)) continue;
      rotate_row(d, rows);
      if (rows.norm != nullptr) norm_row_backward(x, d, backward);
    }
  }
}

template <class T>
HeadRowsKernel<T> make_head_rows_kernel() {
  return {head_rows<T>, head_rows_backward<T>};
}
