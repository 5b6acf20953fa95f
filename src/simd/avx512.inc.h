// AVX-512 (F, DQ, BW, VL): 64-byte vectors, 32 registers.
inline constexpr int kVectorBytes = 64;
inline constexpr int kKeyTile = 8;  // 8 x 3 accumulators + 3 queries + 1 broadcast = 28 registers

template <class T>
struct VecOf {
  typedef T type __attribute__((vector_size(64)));
};
template <class T>
using Vec = typename VecOf<T>::type;

inline __attribute__((always_inline)) Vec<float> splat(float x) { return _mm512_set1_ps(x); }
inline __attribute__((always_inline)) Vec<double> splat(double x) { return _mm512_set1_pd(x); }
// The empty asm keeps the value in a register: without it GCC folds the broadcast into each FMA as
// a {1to16} memory operand, 27 loads for 24 FMAs.
template <class T>
inline __attribute__((always_inline)) Vec<T> broadcast(const T* x) {
  Vec<T> v = splat(*x);
  asm("" : "+v"(v));
  return v;
}
inline __attribute__((always_inline)) Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return _mm512_fmadd_ps(a, b, c);
}
inline __attribute__((always_inline)) Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return _mm512_fmadd_pd(a, b, c);
}
inline __attribute__((always_inline)) bool any_greater(Vec<float> a, Vec<float> b) {
  return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0;
}
inline __attribute__((always_inline)) bool any_greater(Vec<double> a, Vec<double> b) {
  return _mm512_cmp_pd_mask(a, b, _CMP_GT_OQ) != 0;
}
// The product of each element's low half and b. Masked, for the reason given below.
inline __attribute__((always_inline)) Vec<uint64_t> multiply_low_halves(Vec<uint64_t> a,
                                                                        uint32_t b) {
  return reinterpret_cast<Vec<uint64_t>>(
      _mm512_maskz_mul_epu32(__mmask8(-1), reinterpret_cast<__m512i>(a), _mm512_set1_epi64(b)));
}
inline constexpr bool kHasScalef = true;
// t minus its floor, the subtraction rounded down. The masked forms, because GCC 12 warns falsely
// of an uninitialised value in the plain ones.
inline __attribute__((always_inline)) Vec<float> fraction_of(Vec<float> t) {
  return _mm512_maskz_reduce_ps(__mmask16(-1), t, _MM_FROUND_TO_NEG_INF);
}
inline __attribute__((always_inline)) Vec<double> fraction_of(Vec<double> t) {
  return _mm512_maskz_reduce_pd(__mmask8(-1), t, _MM_FROUND_TO_NEG_INF);
}
// p * 2^floor(t), or 0 where t < flush (so NaN stays NaN).
inline __attribute__((always_inline)) Vec<float> scale_by_exponent(Vec<float> p, Vec<float> t,
                                                                   float flush) {
  return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(t, splat(flush), _CMP_NLT_UQ), p, t);
}
inline __attribute__((always_inline)) Vec<double> scale_by_exponent(Vec<double> p, Vec<double> t,
                                                                    double flush) {
  return _mm512_maskz_scalef_pd(_mm512_cmp_pd_mask(t, splat(flush), _CMP_NLT_UQ), p, t);
}
