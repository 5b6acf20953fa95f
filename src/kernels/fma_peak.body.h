// 24 independent chains, or as many as the registers hold; returns flops done.
POLYHEAD_INLINE double fma_burst(size_t rounds, float* sink) {
  constexpr int kChains = kKeyTile * 3;
  Vec<float> acc[kChains];
  for (int i = 0; i < kChains; ++i) acc[i] = splat(static_cast<float>(i));
  const Vec<float> shrink = splat(0.999F), add = splat(1.0F);
  for (size_t n = rounds; n > 0; --n) {
#pragma GCC unroll 24
    for (int i = 0; i < kChains; ++i) acc[i] = fma(acc[i], shrink, add);
  }
  for (int i = 0; i < kChains; ++i) store(sink, i == 0 ? acc[i] : load(sink) + acc[i]);
  return static_cast<double>(rounds) * kChains * kLanes<float> * 2;
}

inline double fma_rounds(size_t rounds) noexcept {
  alignas(64) float sink[kLanes<float>];
  const double flops = fma_burst(rounds, sink);
  volatile float keep = sink[0];  // the chains must not be optimised away
  static_cast<void>(keep);
  return flops;
}
