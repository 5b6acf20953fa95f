// Any CPU: 16-byte vectors, no fused multiply-add. Same accuracy as the others, not the same bits.
inline constexpr int kVectorBytes = 16;
inline constexpr int kKeyTile = 4;  // 4 x 3 accumulators of 16 registers

template <class T>
struct VecOf {
  typedef T type __attribute__((vector_size(16)));
};
template <class T>
using Vec = typename VecOf<T>::type;

inline __attribute__((always_inline)) Vec<float> splat(float x) { return Vec<float>{x, x, x, x}; }
inline __attribute__((always_inline)) Vec<double> splat(double x) { return Vec<double>{x, x}; }
template <class T>
inline __attribute__((always_inline)) Vec<T> broadcast(const T* x) {
  return splat(*x);
}
template <class V>
inline __attribute__((always_inline)) V fma(V a, V b, V c) {
  return a * b + c;
}
template <class V>
inline __attribute__((always_inline)) bool any_greater(V a, V b) {
  bool any = false;
  for (size_t i = 0; i < sizeof(V) / sizeof(a[0]); ++i) any |= a[i] > b[i];
  return any;
}
// The product of each element's low half and b.
inline __attribute__((always_inline)) Vec<uint64_t> multiply_low_halves(Vec<uint64_t> a,
                                                                        uint32_t b) {
  return (a & uint64_t{0xffffffff}) * uint64_t{b};
}
inline constexpr bool kHasScalef = false;
// SSE2 has no rounding instruction: round to nearest by a large addend, then step down. |t| < 2^20
// or the result is flushed anyway.
inline __attribute__((always_inline)) Vec<float> floor_of(Vec<float> t) {
  const Vec<float> nearest = (t + 0x1.8p23F) - 0x1.8p23F;
  return nearest > t ? nearest - 1.0F : nearest;
}
inline __attribute__((always_inline)) Vec<double> floor_of(Vec<double> t) {
  const Vec<double> nearest = (t + 0x1.8p52) - 0x1.8p52;
  return nearest > t ? nearest - 1.0 : nearest;
}
