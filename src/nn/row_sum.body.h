// Walks over rows vector by vector, and sums in an order that no width of vectors changes: chain c
// takes the elements c, c + 16, c + 32, ... (float64: 8 apart), 64 bytes of chains in all; then
// chains c and c + 8 are added, then c and c + 4, and so on.
#include "kernels/row.body.h"

#define POLYHEAD_INLINE_LAMBDA __attribute__((always_inline))

template <class T>
inline constexpr size_t kGroup = 64 / sizeof(T);
inline constexpr int kGroupVectors = 64 / kVectorBytes;

// body(v, i, n): elements [i, i + n) are vector v of their group.
template <class T, class Body>
POLYHEAD_INLINE void for_each_vector(size_t width, const Body& body) {
  constexpr size_t kN = kLanes<T>;
  size_t i = 0;
  for (; i + kGroup<T> <= width; i += kGroup<T>) {
#pragma GCC unroll 4
    for (size_t v = 0; v < kGroupVectors; ++v) body(v, i + v * kN, kN);
  }
#pragma GCC unroll 4
  for (size_t v = 0; v < kGroupVectors; ++v) {
    if (i + v * kN < width) body(v, i + v * kN, at_most(width - i - v * kN, kN));
  }
}

// The first n lanes of v, `rest` in the others.
template <class T>
POLYHEAD_INLINE Vec<T> first_lanes(Vec<T> v, size_t n, T rest) {
  if (n == kLanes<T>) return v;
  return iota<T>() < splat(static_cast<T>(n)) ? v : splat(rest);
}

template <class T>
POLYHEAD_INLINE T fold_sum(const Vec<T> (&chains)[kGroupVectors]) {
  T sums[kGroup<T>];
#pragma GCC unroll 4
  for (int v = 0; v < kGroupVectors; ++v) store(sums + v * kLanes<T>, chains[v]);
  for (size_t half = kGroup<T> / 2; half > 0; half /= 2) {
    for (size_t c = 0; c < half; ++c) sums[c] += sums[c + half];
  }
  return sums[0];
}
