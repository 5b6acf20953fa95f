// Dropout of a granule: 16 random bits for each of its 8 keys and the queries in the lanes.

// Philox4x32-10 (base/philox.h) in the low halves of 64-bit elements, where one instruction
// multiplies them; the high halves hold whatever the products left there.
template <int kStreams>
POLYHEAD_INLINE void philox_lanes(Vec<uint64_t> (&word)[4][kStreams], uint64_t seed) {
  auto key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < kPhiloxRounds; ++round) {
#pragma GCC unroll 6
    for (int n = 0; n < kStreams; ++n) {
      const Vec<uint64_t> a = multiply_low_halves(word[0][n], kPhiloxMultipliers[0]);
      const Vec<uint64_t> b = multiply_low_halves(word[2][n], kPhiloxMultipliers[1]);
      word[0][n] = (b >> 32) ^ word[1][n] ^ static_cast<uint64_t>(key0);
      word[1][n] = b;
      word[2][n] = (a >> 32) ^ word[3][n] ^ static_cast<uint64_t>(key1);
      word[3][n] = a;
    }
    key0 += kPhiloxKeySteps[0];
    key1 += kPhiloxKeySteps[1];
  }
}

// A vector of lanes takes its words from so many of 64-bit elements: of its even and its odd lanes,
// or, in float64, of all.
template <class T>
inline constexpr int kWordParts = static_cast<int>(8 / sizeof(T));

// Calls use(key, i, dropped) for the granule's 8 keys and the vectors i = first .. first +
// kVectors; `dropped` is a mask of lanes, for `dropped ? a : b`.
template <class T, int kVectors, class Use>
POLYHEAD_INLINE void draw_vectors(const TileDropout& dropout, uint32_t granule, int first,
                                  const Use& use) {
  using Bits = decltype(Vec<T>{} < Vec<T>{});
  using Int = Element<Bits>;
  constexpr int kParts = kWordParts<T>;
  const Vec<uint64_t> none{};
  Vec<uint64_t> word[4][kVectors * kParts];
#pragma GCC unroll 6
  for (int n = 0; n < kVectors * kParts; ++n) {
    const auto lane = static_cast<uint64_t>((first + n / kParts) * kLanes<T> + n % kParts);
    word[0][n] = none + uint64_t{dropout.call};
    word[1][n] = none + uint64_t{dropout.head};
    word[2][n] = iota<uint64_t>() * uint64_t{kParts} + (dropout.first_query + lane);
    word[3][n] = none + uint64_t{granule};
  }
  philox_lanes(word, dropout.seed);
  const Bits threshold = Bits{} + static_cast<Int>(dropout.threshold);
#pragma GCC unroll 3
  for (int i = 0; i < kVectors; ++i) {
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      Vec<uint64_t> both = word[k][i * kParts];
      if constexpr (kParts == 2) {
        both = (both & uint64_t{0xffffffff}) | (word[k][i * kParts + 1] << 32);
      }
      const Bits drawn = bit_cast<Bits>(both);
      use(2 * k, first + i, (drawn & Int{0xffff}) < threshold);
      use(2 * k + 1, first + i, (drawn >> 16 & Int{0xffff}) < threshold);
    }
  }
}

// The same for NV vectors, of which lane 0 is dropout.first_query. Philox is one long chain: where
// there are registers for it, the vectors' chains run side by side.
template <class T, int NV, class Use>
POLYHEAD_INLINE void for_each_drawn(const TileDropout& dropout, uint32_t granule, const Use& use) {
  constexpr int kTogether = kKeyTile == 8 ? NV : 1;
  for (int i = 0; i < NV; i += kTogether) draw_vectors<T, kTogether>(dropout, granule, i, use);
}

// -0.0 in place of the dropped pairs' probabilities [8, W]: the mark of a pair that out leaves
// alone.
template <class T, int NV>
__attribute__((noinline)) void drop_pairs(const TileDropout& dropout, uint32_t granule, T* probs) {
  for_each_drawn<T, NV>(dropout, granule, [&](int key, int i, auto dropped) {
    T* p = probs + (key * NV + i) * kLanes<T>;
    store(p, dropped ? splat(T{-0.0}) : load(p));
  });
}
