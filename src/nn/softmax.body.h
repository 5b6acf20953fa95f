// Rows of softmax.h.
#include "nn/row_sum.body.h"

// NaN anywhere makes the sum NaN, whatever the maximum is.
template <class T>
POLYHEAD_INLINE T row_maximum(const T* x, size_t width) {
  Vec<T> highest[kGroupVectors];
#pragma GCC unroll 4
  for (int v = 0; v < kGroupVectors; ++v) highest[v] = splat(x[0]);
  for_each_vector<T>(width, [&](size_t v, size_t i, size_t n) POLYHEAD_INLINE_LAMBDA {
    highest[v] = maximum(first_lanes<T>(load_row(x + i, 1, n), n, x[0]), highest[v]);
  });
  T result = x[0];
  for (int v = 0; v < kGroupVectors; ++v) {
    for (int lane = 0; lane < kLanes<T>; ++lane) {
      result = highest[v][lane] > result ? highest[v][lane] : result;
    }
  }
  return result;
}

template <class T>
nn::SoftmaxSum<T> softmax_exps(const T* x, size_t width, T* exps) noexcept {
  constexpr T kLog2e = static_cast<T>(1.4426950408889634074);
  const T max = row_maximum(x, width);
  Vec<T> sum[kGroupVectors] = {};
  for_each_vector<T>(width, [&](size_t v, size_t i, size_t n) POLYHEAD_INLINE_LAMBDA {
    const Vec<T> e = exp2_flushed((load_row(x + i, 1, n) - splat(max)) * splat(kLog2e));
    sum[v] += first_lanes<T>(e, n, T{0});
    if (exps) store_row(exps + i, 1, e, n);
  });
  return {max, fold_sum<T>(sum)};
}

template <class T>
void scale_row(T* row, size_t width, T factor) noexcept {
  for (size_t i = 0; i < width; i += kLanes<T>) {
    const size_t n = at_most(width - i, kLanes<T>);
    store_row(row + i, 1, load_row(row + i, 1, n) * splat(factor), n);
  }
}

template <class T>
nn::SoftmaxKernel<T> make_softmax_kernel() {
  return {softmax_exps<T>, scale_row<T>};
}
