// Soft-capped scores: cap * tanh(s / cap). FMA chains and our own exp, so that tanh has the same
// bits on every instruction set.

// (tanh(x) / x - 1) / x^2 for |x| <= 1/2, a polynomial in x^2, highest power first
// (tools/tanh_coefficients.py derives it).
inline constexpr float kTanhFloat[] = {-0x1.c7033cp-8F, 0x1.5fc692p-6F, -0x1.b9d2aep-5F,
                                       0x1.11108p-3F, -0x1.555554p-2F};
inline constexpr double kTanhDouble[] = {
    0x1.f2ddeb9a07da7p-15, -0x1.cf9f3fe656023p-13, 0x1.32b0b92ad1a40p-11, -0x1.7d68abe445c4bp-10,
    0x1.d6d0a485132ebp-9,  -0x1.226e27ed0ac68p-7,  0x1.664f484114832p-6,  -0x1.ba1ba1b9783d6p-5,
    0x1.1111111110c21p-3,  -0x1.5555555555555p-2};
template <class T>
inline constexpr T kTanhNear = T{0.5};

template <class T>
POLYHEAD_INLINE Vec<T> tanh_polynomial(Vec<T> z) {
  if constexpr (sizeof(T) == 4) {
    Vec<T> p = splat(kTanhFloat[0]);
#pragma GCC unroll 8
    for (size_t i = 1; i < sizeof kTanhFloat / sizeof(T); ++i) p = fma(p, z, splat(kTanhFloat[i]));
    return p;
  } else {
    Vec<T> p = splat(kTanhDouble[0]);
#pragma GCC unroll 16
    for (size_t i = 1; i < sizeof kTanhDouble / sizeof(T); ++i) {
      p = fma(p, z, splat(kTanhDouble[i]));
    }
    return p;
  }
}

// Far from 0 by exp(-2|x|), near it by the polynomial: there the other would cancel. Scores are
// near as a rule, and the division waits.
template <class T>
POLYHEAD_INLINE Vec<T> tanh_of(Vec<T> x) {
  const Vec<T> z = x * x, near = fma(x * z, tanh_polynomial<T>(z), x);
  const Vec<T> size = x < Vec<T>{} ? -x : x, limit = splat(kTanhNear<T>);
  if (!any_greater(size, limit)) return near;
  const Vec<T> one = splat(T{1}), falls = exp2_flushed(size * splat(-2 * kLog2E<T>));
  const Vec<T> far = (one - falls) / (one + falls);
  return size > limit ? (x < Vec<T>{} ? -far : far) : near;
}

// Caps whole vectors of scores in place. slopes, if wanted: the derivative, 1 - tanh^2.
template <class T>
__attribute__((noinline)) void cap_scores(const AttentionTile<T>& in, size_t count, T* scores,
                                          T* slopes) {
  const Vec<T> cap = splat(in.softcap), inverse = splat(in.inverse_softcap);
  for (size_t at = 0; at < count; at += kLanes<T>) {
    const Vec<T> t = tanh_of<T>(load(scores + at) * inverse);
    store(scores + at, t * cap);
    if (slopes != nullptr) store(slopes + at, fma(-t, t, splat(T{1})));
  }
}
