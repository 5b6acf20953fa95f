// The part of the vector layer that is the same for every ISA. Included in a region, after the
// ISA's own file, which gives kVectorBytes, kKeyTile, Vec, splat, broadcast, fma and any_greater.
//
// Vec<float> and Vec<double> are GCC vector extensions: + - * / and comparisons work on them, and
// `mask ? a : b` selects per lane. No static vector constants, no vectors across regions.

template <class T>
inline constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

template <class V>
using Element = std::remove_cvref_t<decltype(V{}[0])>;

#define POLYHEAD_INLINE inline __attribute__((always_inline))

// std::bit_cast would be compiled for the baseline, and take vectors by another calling convention.
template <class To, class From>
POLYHEAD_INLINE To bit_cast(From from) {
  return __builtin_bit_cast(To, from);
}

// Any address; alignment makes it faster, not different.
template <class T>
POLYHEAD_INLINE Vec<T> load(const T* from) {
  Vec<T> v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}

template <class T>
POLYHEAD_INLINE void store(T* to, Vec<T> v) {
  __builtin_memcpy(to, &v, sizeof v);
}

// The first n lanes; the others are 0, and their memory is not touched.
template <class T>
POLYHEAD_INLINE Vec<T> load_part(const T* from, size_t n) {
  Vec<T> v{};
  if (n == kLanes<T> / 2) {  // 8 keys of a mask: a constant size is one instruction, not a call
    __builtin_memcpy(&v, from, sizeof v / 2);
  } else {
    __builtin_memcpy(&v, from, n * sizeof(T));
  }
  return v;
}

template <class T>
POLYHEAD_INLINE void store_part(T* to, Vec<T> v, size_t n) {
  __builtin_memcpy(to, &v, n * sizeof(T));
}

// Half a vector from each.
template <class T, size_t... kLane>
POLYHEAD_INLINE Vec<T> join(const T* low, const T* high, std::index_sequence<kLane...>) {
  typedef T Half __attribute__((vector_size(kVectorBytes / 2)));
  Half a, b;
  __builtin_memcpy(&a, low, sizeof a);
  __builtin_memcpy(&b, high, sizeof b);
  return __builtin_shufflevector(a, b, static_cast<int>(kLane)...);
}
template <class T>
POLYHEAD_INLINE Vec<T> load_halves(const T* low, const T* high) {
  return join(low, high, std::make_index_sequence<kLanes<T>>());
}

// Where b is NaN the result is b: a NaN on the left is dropped.
template <class V>
POLYHEAD_INLINE V maximum(V a, V b) {
  return a > b ? a : b;
}

template <class T>
POLYHEAD_INLINE Vec<T> iota() {
  Vec<T> v{};
  for (int i = 0; i < kLanes<T>; ++i) v[i] = static_cast<T>(i);
  return v;
}

// One step of the transpose: exchanges the off-diagonal blocks of kStep x kStep in two rows.
template <int kStep, class V, size_t... kLane>
POLYHEAD_INLINE void exchange(V& a, V& b, std::index_sequence<kLane...>) {
  constexpr int kN = sizeof...(kLane), kS = kStep;
  const V low =
      __builtin_shufflevector(a, b,
                              ((static_cast<int>(kLane) & kS) ? kN + static_cast<int>(kLane) - kS
                                                              : static_cast<int>(kLane))...);
  const V high =
      __builtin_shufflevector(a, b,
                              ((static_cast<int>(kLane) & kS) ? kN + static_cast<int>(kLane)
                                                              : static_cast<int>(kLane) + kS)...);
  a = low;
  b = high;
}

template <int kStep, class V, int kN>
POLYHEAD_INLINE void transpose_steps(V (&rows)[kN]) {
  if constexpr (kStep < kN) {
#pragma GCC unroll 16
    for (int i = 0; i < kN; ++i) {
      if ((i & kStep) == 0) {
        exchange<kStep>(rows[i], rows[i + kStep], std::make_index_sequence<kLanes<Element<V>>>());
      }
    }
    transpose_steps<2 * kStep>(rows);
  }
}

// rows[i][j] <-> rows[j][i], in registers. Half as many rows as lanes: each half of the lanes is a
// square of its own.
template <class V, int kN>
POLYHEAD_INLINE void transpose(V (&rows)[kN]) {
  static_assert(kN == kLanes<Element<V>> || 2 * kN == kLanes<Element<V>>);
  transpose_steps<1>(rows);
}
