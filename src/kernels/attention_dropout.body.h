// Dropout of a granule: 16 random bits for each of its 8 keys and the queries in the lanes.

// Philox4x32-10 (base/philox.h) in the low halves of 64-bit elements, where one instruction
// multiplies them; the high halves hold whatever the products left there.
template <int kParts>
POLYHEAD_INLINE void philox_lanes(Vec<uint64_t> (&word)[4][kParts], uint64_t seed) {
  auto key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < kPhiloxRounds; ++round) {
#pragma GCC unroll 2
    for (int n = 0; n < kParts; ++n) {
      const Vec<uint64_t> a = multiply_low_halves(word[0][n], kPhiloxMultipliers[0]);
      const Vec<uint64_t> b = multiply_low_halves(word[2][n], kPhiloxMultipliers[1]);
      word[0][n] = (b >> 32) ^ word[1][n] ^ uint64_t { key0 };
      word[1][n] = b;
      word[2][n] = (a >> 32) ^ word[3][n] ^ uint64_t { key1 };
      word[3][n] = a;
    }
    key0 += kPhiloxKeySteps[0];
    key1 += kPhiloxKeySteps[1];
  }
}

// Calls use(key, i, dropped) for the granule's 8 keys and each of NV vectors of lanes; `dropped` is
// a mask of lanes, for `dropped ? a : b`. Lane 0 of vector 0 is dropout.first_query.
template <class T, int NV, class Use>
POLYHEAD_INLINE void for_each_drawn(const TileDropout& dropout, uint32_t granule, const Use& use) {
  using Bits = decltype(Vec<T>{} < Vec<T>{});
  using Int = Element<Bits>;
  constexpr int kParts = static_cast<int>(8 / sizeof(T));  // float: even lanes, and odd ones
  const Vec<uint64_t> none{};
  for (int i = 0; i < NV; ++i) {
    Vec<uint64_t> word[4][kParts];
#pragma GCC unroll 2
    for (int n = 0; n < kParts; ++n) {
      const uint64_t first =
          uint64_t{dropout.first_query} + static_cast<uint64_t>(i * kLanes<T> + n);
      word[0][n] = none + uint64_t{dropout.call};
      word[1][n] = none + uint64_t{dropout.head};
      word[2][n] = iota<uint64_t>() * uint64_t{kParts} + first;
      word[3][n] = none + uint64_t{granule};
    }
    philox_lanes(word, dropout.seed);
    const Bits threshold = Bits{} + static_cast<Int>(dropout.threshold);
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      Vec<uint64_t> both = word[k][0];
      if constexpr (kParts == 2) both = (both & uint64_t{0xffffffff}) | (word[k][1] << 32);
      const Bits drawn = bit_cast<Bits>(both);
      use(2 * k, i, (drawn & Int{0xffff}) < threshold);
      use(2 * k + 1, i, (drawn >> 16 & Int{0xffff}) < threshold);
    }
  }
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
