// 2^f on [0, 1): relative minimax polynomials with p(0) = 1 exactly, so that a row's maximum has
// probability 1 before normalisation (tools/exp2_coefficients.py derives them).
// float: degree 5, 1.4 * 2^-24 before rounding; double: degree 11, 0.03 * 2^-53.
inline constexpr float kExp2Float[] = {0.00186713024F, 0.00901703005F, 0.0557999132F,
                                       0.24016445F,    0.693151312F,   1.0F};
inline constexpr double kExp2Double[] = {
    0x1.58566d9274442p-31, 0x1.c2c479bbcd06ep-28, 0x1.b85f42b4ae873p-24, 0x1.628f3585d6d03p-20,
    0x1.ffcfc6a98a6abp-17, 0x1.4308fa1dd29cap-13, 0x1.5d87ff4d2259fp-10, 0x1.3b2ab6f734171p-7,
    0x1.c6b08d7065838p-5,  0x1.ebfbdff82c04bp-3,  0x1.62e42fefa39f5p-1,  1.0};

template <class V>
POLYHEAD_INLINE V exp2_polynomial(V f) {
  if constexpr (sizeof(Element<V>) == 4) {
    V p = splat(kExp2Float[0]);
#pragma GCC unroll 8
    for (int i = 1; i < 6; ++i) p = fma(p, f, splat(kExp2Float[i]));
    return p;
  } else {
    V p = splat(kExp2Double[0]);
#pragma GCC unroll 16
    for (int i = 1; i < 12; ++i) p = fma(p, f, splat(kExp2Double[i]));
    return p;
  }
}

// Below this, 2^t is flushed to 0 on every ISA: a power of two made of its exponent field alone
// cannot be subnormal, vscalefps can make it so.
template <class T>
inline constexpr T kExp2Flush = sizeof(T) == 4 ? -125 : -1021;

// For an ISA without vreduce and vscalef. t <= 2^20; NaN stays NaN.
template <class V>
POLYHEAD_INLINE V exp2_by_exponent(V t, V floor_t) {
  using T = Element<V>;
  // Unsigned: for a t to be flushed the sums of bits wrap around.
  using Word = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  typedef Word Bits __attribute__((vector_size(sizeof(V))));
  constexpr int kMantissaBits = sizeof(T) == 4 ? 23 : 52;
  // Puts an integer into the low bits, the exponent's bias added.
  constexpr T kShift = static_cast<T>(sizeof(T) == 4 ? 0x1.8p23 + 127 : 0x1.8p52 + 1023);
  // The subtraction rounded down, as vreduce does it: one step back where it was rounded up.
  const V rounded = t - floor_t;
  const Bits down = bit_cast<Bits>((floor_t + rounded) > t);  // -1 where true
  const V fraction = bit_cast<V>(bit_cast<Bits>(rounded) + down);
  const V power = bit_cast<V>(bit_cast<Bits>(floor_t + splat(kShift)) << Word{kMantissaBits});
  // A product, not a sum of bits: of a NaN with a payload the sum would make a number.
  return t < splat(kExp2Flush<T>) ? V{} : exp2_polynomial(fraction) * power;
}

// 2^t, t <= 2^20, the same bits on every ISA with fused multiply-add.
template <class V>
POLYHEAD_INLINE V exp2_flushed(V t) {
  if constexpr (kHasScalef) {
    return scale_by_exponent(exp2_polynomial(fraction_of(t)), t, kExp2Flush<Element<V>>);
  } else {
    return exp2_by_exponent(t, floor_of(t));
  }
}
