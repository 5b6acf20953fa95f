// aarch64: 16-byte vectors, 32 registers, fused multiply-add on every CPU.
inline constexpr int kVectorBytes = 16;
inline constexpr int kKeyTile = 8;  // 8 x 3 accumulators + 3 queries + 1 broadcast = 28 registers

template <class T>
struct VecOf {
  typedef T type __attribute__((vector_size(16)));
};
template <class T>
using Vec = typename VecOf<T>::type;

inline __attribute__((always_inline)) Vec<float> splat(float x) { return vdupq_n_f32(x); }
inline __attribute__((always_inline)) Vec<double> splat(double x) { return vdupq_n_f64(x); }
template <class T>
inline __attribute__((always_inline)) Vec<T> broadcast(const T* x) {
  return splat(*x);
}
inline __attribute__((always_inline)) Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return vfmaq_f32(c, a, b);
}
inline __attribute__((always_inline)) Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return vfmaq_f64(c, a, b);
}
inline __attribute__((always_inline)) bool any_greater(Vec<float> a, Vec<float> b) {
  return vmaxvq_u32(vcgtq_f32(a, b)) != 0;
}
inline __attribute__((always_inline)) bool any_greater(Vec<double> a, Vec<double> b) {
  return vmaxvq_u32(vreinterpretq_u32_u64(vcgtq_f64(a, b))) != 0;
}
// The product of each element's low half and b.
inline __attribute__((always_inline)) Vec<uint64_t> multiply_low_halves(Vec<uint64_t> a,
                                                                        uint32_t b) {
  return vmull_n_u32(vmovn_u64(a), b);
}
inline constexpr bool kHasScalef = false;
inline __attribute__((always_inline)) Vec<float> floor_of(Vec<float> t) { return vrndmq_f32(t); }
inline __attribute__((always_inline)) Vec<double> floor_of(Vec<double> t) { return vrndmq_f64(t); }
