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

// Within blocks of 4 lanes: a0 b0 a1 b1 and a2 b2 a3 b3. One x86 instruction without a table of
// lanes, as the other steps are; exchange<1> would not be.
template <class V, size_t... kLane>
POLYHEAD_INLINE void interleave(V& a, V& b, std::index_sequence<kLane...>) {
  constexpr size_t kN = sizeof...(kLane);
  const V low = __builtin_shufflevector(
      a, b, static_cast<int>(kLane / 4 * 4 + kLane % 4 / 2 + kLane % 2 * kN)...);
  b = __builtin_shufflevector(
      a, b, static_cast<int>(kLane / 4 * 4 + kLane % 4 / 2 + kLane % 2 * kN + 2)...);
  a = low;
}

// Quarters: a0 a2 b0 b2 and a1 a3 b1 b3. Likewise, in place of the exchange of quarters.
template <class V, size_t... kLane>
POLYHEAD_INLINE void deal_quarters(V& a, V& b, std::index_sequence<kLane...>) {
  constexpr size_t kN = sizeof...(kLane), kQuarter = kN / 4;
  const V low = __builtin_shufflevector(
      a, b,
      static_cast<int>(kLane + kLane / kQuarter % 2 * kQuarter + kLane / (kN / 2) * (kN / 2))...);
  b = __builtin_shufflevector(a, b,
                              static_cast<int>(kLane + kLane / kQuarter % 2 * kQuarter +
                                               kLane / (kN / 2) * (kN / 2) + kQuarter)...);
  a = low;
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

// Steps 1 and 2 of 4-byte lanes.
template <class V, int kN>
POLYHEAD_INLINE void transpose_blocks_of_4(V (&rows)[kN]) {
  constexpr auto kLanesOfV = std::make_index_sequence<kLanes<Element<V>>>();
#pragma GCC unroll 4
  for (int block = 0; block < kN / 4; ++block) {
    V &a = rows[4 * block], &b = rows[4 * block + 1], &c = rows[4 * block + 2],
      &d = rows[4 * block + 3];
    interleave(a, b, kLanesOfV);
    interleave(c, d, kLanesOfV);
    exchange<2>(a, c, kLanesOfV);
    exchange<2>(b, d, kLanesOfV);
    const V second = c;
    c = b;
    b = second;
  }
}

// The last two steps of a square whose lanes are four blocks.
template <class V, int kN>
POLYHEAD_INLINE void transpose_quarters(V (&rows)[kN]) {
  constexpr int kQuarter = kN / 4;
#pragma GCC unroll 4
  for (int i = 0; i < kQuarter; ++i) {
    V &a = rows[i], &b = rows[i + kQuarter], &c = rows[i + 2 * kQuarter],
      &d = rows[i + 3 * kQuarter];
    deal_quarters(a, b, std::make_index_sequence<kN>());
    deal_quarters(c, d, std::make_index_sequence<kN>());
    deal_quarters(a, c, std::make_index_sequence<kN>());
    deal_quarters(b, d, std::make_index_sequence<kN>());
  }
}

// rows[i][j] <-> rows[j][i], in registers. Half as many rows as lanes: each half of the lanes is a
// square of its own.
template <class V, int kN>
POLYHEAD_INLINE void transpose(V (&rows)[kN]) {
  constexpr int kBlock = 16 / sizeof(Element<V>);
  static_assert(kN == kLanes<Element<V>> || 2 * kN == kLanes<Element<V>>);
  static_assert(kBlock == 4 || kBlock == 2);
  if constexpr (kN % kBlock != 0) {
    transpose_steps<1>(rows);
    return;
  } else if constexpr (kBlock == 4) {
    transpose_blocks_of_4(rows);
  } else {
#pragma GCC unroll 8
    for (int block = 0; block < kN / 2; ++block) {
      exchange<1>(rows[2 * block], rows[2 * block + 1],
                  std::make_index_sequence<kLanes<Element<V>>>());
    }
  }
  if constexpr (kN == 4 * kBlock) {
    transpose_quarters(rows);
  } else {
    transpose_steps<kBlock>(rows);
  }
}
