// AVX2 with FMA: 32-byte vectors, 16 registers.
inline constexpr int kVectorBytes = 32;
inline constexpr int kKeyTile = 4;  // 4 x 3 accumulators + 3 queries + 1 broadcast = 16 registers

template <class T>
struct VecOf {
  typedef T type __attribute__((vector_size(32)));
};
template <class T>
using Vec = typename VecOf<T>::type;

inline __attribute__((always_inline)) Vec<float> splat(float x) { return _mm256_set1_ps(x); }
inline __attribute__((always_inline)) Vec<double> splat(double x) { return _mm256_set1_pd(x); }
template <class T>
inline __attribute__((always_inline)) Vec<T> broadcast(const T* x) {
  return splat(*x);
}
inline __attribute__((always_inline)) Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return _mm256_fmadd_ps(a, b, c);
}
inline __attribute__((always_inline)) Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return _mm256_fmadd_pd(a, b, c);
}
inline __attribute__((always_inline)) bool any_greater(Vec<float> a, Vec<float> b) {
  return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)) != 0;
}
inline __attribute__((always_inline)) bool any_greater(Vec<double> a, Vec<double> b) {
  return _mm256_movemask_pd(_mm256_cmp_pd(a, b, _CMP_GT_OQ)) != 0;
}
// The product of each element's low half and b.
inline __attribute__((always_inline)) Vec<uint64_t> multiply_low_halves(Vec<uint64_t> a,
                                                                        uint32_t b) {
  return reinterpret_cast<Vec<uint64_t>>(
      _mm256_mul_epu32(reinterpret_cast<__m256i>(a), _mm256_set1_epi64x(b)));
}
inline constexpr bool kHasScalef = false;
inline __attribute__((always_inline)) Vec<float> floor_of(Vec<float> t) {
  return _mm256_floor_ps(t);
}
inline __attribute__((always_inline)) Vec<double> floor_of(Vec<double> t) {
  return _mm256_floor_pd(t);
}
