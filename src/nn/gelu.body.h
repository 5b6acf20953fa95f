// The elements of gelu.h.
#include "kernels/row.body.h"

// P(t) of 1 - Phi(z) = exp(-z^2 / 2) * t * P(t), highest power first, and p of t = 1 / (1 + p z).
inline constexpr float kTailFloat[] = {-0.02091977F,  0.117405824F, -0.248525515F, 0.225862309F,
                                       -0.104692347F, 0.110148959F, 0.0738885179F, 0.110153936F,
                                       0.1182338F,    0.118444286F};
inline constexpr double kTailDouble[] = {
    0x1.788b2d1cde805p-11, -0x1.0cfca1cbc29cap-7, 0x1.5c6a30b028abdp-5,  -0x1.0c66b51104c39p-3,
    0x1.0ecb50b1de020p-2,  -0x1.7283023368d90p-2, 0x1.5626175663da9p-2,  -0x1.8d5e495aa0254p-3,
    0x1.532b3ad4a6ba9p-5,  0x1.9dba26cab61c7p-5,  -0x1.1b50f3217061ap-4, 0x1.67b440d7871aep-5,
    -0x1.a7bcde7bbd77dp-6, 0x1.3668f0911ef1ep-7,  0x1.7e7f367149768p-8,  0x1.49a89aac5c74cp-6,
    0x1.116c82e77a861p-5,  0x1.8d7aecfecc259p-5,  0x1.01461e96ca0b4p-4,  0x1.32238739b9fe7p-4,
    0x1.5458fcf0771cbp-4,  0x1.6573c8e223f1dp-4,  0x1.6573c8d56bc9dp-4};
template <class T>
inline constexpr T kNormalScale = static_cast<T>(sizeof(T) == 4 ? 0.296875 : 0.21875);

template <class T>
POLYHEAD_INLINE Vec<T> tail_polynomial(Vec<T> t) {
  if constexpr (sizeof(T) == 4) {
    Vec<T> p = splat(kTailFloat[0]);
#pragma GCC unroll 16
    for (int i = 1; i < 10; ++i) p = fma(p, t, splat(kTailFloat[i]));
    return p;
  } else {
    Vec<T> p = splat(kTailDouble[0]);
#pragma GCC unroll 32
    for (int i = 1; i < 23; ++i) p = fma(p, t, splat(kTailDouble[i]));
    return p;
  }
}

template <class T>
struct Normal {
  Vec<T> distribution, density;

  POLYHEAD_INLINE explicit Normal(Vec<T> x) {
    constexpr T kHalfLog2e = static_cast<T>(0.72134752044448170368);
    constexpr T kDensityAtZero = static_cast<T>(0.39894228040143267794);
    const Vec<T> z = x < T{0} ? -x : x;
    const Vec<T> t = splat(T{1}) / fma(z, splat(kNormalScale<T>), splat(T{1}));
    const Vec<T> falls = exp2_flushed(z * z * splat(-kHalfLog2e));
    const Vec<T> tail = falls * (t * tail_polynomial<T>(t));
    distribution = x > T{0} ? T{1} - tail : tail;
    density = falls * splat(kDensityAtZero);
  }
};

template <class T>
void gelu_forward(const T* x, size_t count, T* y) noexcept {
  for (size_t i = 0; i < count; i += kLanes<T>) {
    const size_t n = at_most(count - i, kLanes<T>);
    const Vec<T> v = load_row(x + i, 1, n);
    store_row(y + i, 1, v * Normal<T>(v).distribution, n);
  }
}

template <class T>
void gelu_backward(const T* x, const T* d_y, size_t count, T* d_x) noexcept {
  for (size_t i = 0; i < count; i += kLanes<T>) {
    const size_t n = at_most(count - i, kLanes<T>);
    const Vec<T> v = load_row(x + i, 1, n);
    const Normal<T> normal(v);
    const Vec<T> slope = fma(v, normal.density, normal.distribution);
    store_row(d_x + i, 1, load_row(d_y + i, 1, n) * slope, n);
  }
}

template <class T>
nn::GeluKernel<T> make_gelu_kernel() {
  return {gelu_forward<T>, gelu_backward<T>};
}
