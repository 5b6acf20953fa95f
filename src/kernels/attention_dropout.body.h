// Dropout of a granule: 16 random bits for each of its 8 keys and the queries in the lanes.

// A vector of lanes takes its words from so many of 64-bit elements: of its even and its odd lanes,
// or, in float64, of all.
template <class T>
inline constexpr int kWordParts = static_cast<int>(8 / sizeof(T));

inline constexpr int kFullRound = 3;  // of Philox, the first that a granule goes through in full

// What a tile's queries bring to its draws. Of a counter {call, head, query, granule} the granule
// alone changes on the way through the keys; of the first three rounds it changes but what
// begin_words does.
template <class T, int NV>
struct TileDraws {
  static constexpr int kStreams = NV * kWordParts<T>;
  int threshold;
  uint32_t granule_key;                          // round 1: hi(a) ^ key1
  uint64_t low_key;                              // round 2: key0
  uint64_t keys[kPhiloxRounds - kFullRound][2];  // of the full rounds
  // By their low halves: round 1's b; round 2's a ^ round 3's key1; round 3's hi(b) ^ key0 and b.
  Vec<uint64_t> b1[kStreams], a2[kStreams], high3[kStreams], b3[kStreams];

  __attribute__((noinline)) explicit TileDraws(const TileDropout& dropout) {
    if (dropout.threshold == 0) return;
    const auto key = [&](int round, int which) {
      return static_cast<uint32_t>(dropout.seed >> (32 * which)) +
             static_cast<uint32_t>(round) * kPhiloxKeySteps[which];
    };
    const uint64_t a1 = uint64_t{kPhiloxMultipliers[0]} * dropout.call;
    threshold = static_cast<int>(dropout.threshold);
    granule_key = static_cast<uint32_t>(a1 >> 32) ^ key(0, 1);
    low_key = key(1, 0);
    for (int round = kFullRound; round < kPhiloxRounds; ++round) {
      for (int which : {0, 1}) keys[round - kFullRound][which] = key(round, which);
    }
    for (int n = 0; n < kStreams; ++n) {
      const int lane = n / kWordParts<T> * kLanes<T> + n % kWordParts<T>;
      const Vec<uint64_t> query = iota<uint64_t>() * uint64_t{kWordParts<T>} +
                                  (dropout.first_query + static_cast<uint64_t>(lane));
      b1[n] = multiply_low_halves(query, kPhiloxMultipliers[1]);
      const Vec<uint64_t> word0 = (b1[n] >> 32) ^ uint64_t { dropout.head ^ key(0, 0) };
      const Vec<uint64_t> a = multiply_low_halves(word0, kPhiloxMultipliers[0]);
      const Vec<uint64_t> word2 = (a >> 32) ^ uint64_t { static_cast<uint32_t>(a1) ^ key(1, 1) };
      a2[n] = a ^ uint64_t{key(2, 1)};
      b3[n] = multiply_low_halves(word2, kPhiloxMultipliers[1]);
      high3[n] = (b3[n] >> 32) ^ uint64_t { key(2, 0) };
    }
  }
};

// Philox4x32-10 (base/philox.h) in the low halves of 64-bit elements, where one instruction
// multiplies them; the high halves hold whatever the products left there.
template <int kStreams>
POLYHEAD_INLINE void philox_round(Vec<uint64_t> (&word)[4][kStreams], const uint64_t (&key)[2]) {
#pragma GCC unroll 6
  for (int n = 0; n < kStreams; ++n) {
    const Vec<uint64_t> a = multiply_low_halves(word[0][n], kPhiloxMultipliers[0]);
    const Vec<uint64_t> b = multiply_low_halves(word[2][n], kPhiloxMultipliers[1]);
    word[0][n] = (b >> 32) ^ word[1][n] ^ key[0];
    word[1][n] = b;
    word[2][n] = (a >> 32) ^ word[3][n] ^ key[1];
    word[3][n] = a;
  }
}

// The streams [first, first + kStreams) after the rounds before the full ones.
template <class T, int NV, int kStreams>
POLYHEAD_INLINE void begin_words(const TileDraws<T, NV>& draws, uint32_t granule, int first,
                                 Vec<uint64_t> (&word)[4][kStreams]) {
  const uint64_t b = uint64_t{kPhiloxMultipliers[1]} * (granule ^ draws.granule_key);  // round 2
  const uint64_t high = b >> 32 ^ draws.low_key;
#pragma GCC unroll 6
  for (int n = 0; n < kStreams; ++n) {
    const Vec<uint64_t> a =
        multiply_low_halves(draws.b1[first + n] ^ high, kPhiloxMultipliers[0]);  // round 3
    word[0][n] = draws.high3[first + n] ^ b;
    word[1][n] = draws.b3[first + n];
    word[2][n] = (a >> 32) ^ draws.a2[first + n];
    word[3][n] = a;
  }
}

// Calls use(key, i, dropped) for the granule's 8 keys and the vectors i = first .. first +
// kVectors; `dropped` is a mask of lanes, for `dropped ? a : b`.
template <int kVectors, class T, int NV, class Use>
POLYHEAD_INLINE void draw_vectors(const TileDraws<T, NV>& draws, uint32_t granule, int first,
                                  const Use& use) {
  using Bits = decltype(Vec<T>{} < Vec<T>{});
  using Int = Element<Bits>;
  constexpr int kParts = kWordParts<T>;
  Vec<uint64_t> word[4][kVectors * kParts];
  begin_words(draws, granule, first * kParts, word);
#pragma GCC unroll 7
  for (const auto& key : draws.keys) philox_round(word, key);
  const Bits threshold = Bits{} + static_cast<Int>(draws.threshold);
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
      if constexpr (kParts == 2) {  // nothing above the 32 bits to be cut off
        const auto high = bit_cast<Vec<uint32_t>>(both) >> 16;
        use(2 * k + 1, first + i, bit_cast<Bits>(high) < threshold);
      } else {
        use(2 * k + 1, first + i, (drawn >> 16 & Int{0xffff}) < threshold);
      }
    }
  }
}

// The same for all vectors. Philox is one long chain: where there are registers for it, the
// vectors' chains run side by side.
template <class T, int NV, class Use>
POLYHEAD_INLINE void for_each_drawn(const TileDraws<T, NV>& draws, uint32_t granule,
                                    const Use& use) {
  constexpr int kTogether = kKeyTile == 8 ? NV : 1;
  for (int i = 0; i < NV; i += kTogether) draw_vectors<kTogether>(draws, granule, i, use);
}

// -0.0 in place of the dropped pairs' probabilities [8, W]: the mark of a pair that out leaves
// alone.
template <class T, int NV>
__attribute__((noinline)) void drop_pairs(const TileDraws<T, NV>& draws, uint32_t granule,
                                          T* probs) {
  for_each_drawn(draws, granule, [&](int key, int i, auto dropped) {
    T* p = probs + (key * NV + i) * kLanes<T>;
    store(p, dropped ? splat(T{-0.0}) : load(p));
  });
}
