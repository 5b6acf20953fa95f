// Rows of layer_norm.h.
#include "nn/row_sum.body.h"

template <class T>
struct RowStatistics {
  T mean, scale;

  // scale = 1 / sqrt(sum (x - mean)^2 / width + epsilon)
  POLYHEAD_INLINE RowStatistics(const T* x, size_t width, T epsilon) {
    const T n = static_cast<T>(width);
    Vec<T> sum[kGroupVectors] = {}, squares[kGroupVectors] = {};
    for_each_vector<T>(width, [&](size_t v, size_t i, size_t count)
                                  POLYHEAD_INLINE_LAMBDA { sum[v] += load_row(x + i, 1, count); });
    mean = fold_sum<T>(sum) / n;
    for_each_vector<T>(width, [&](size_t v, size_t i, size_t count) POLYHEAD_INLINE_LAMBDA {
      const Vec<T> d = first_lanes<T>(load_row(x + i, 1, count) - splat(mean), count, T{0});
      squares[v] = fma(d, d, squares[v]);
    });
    const double variance = static_cast<double>(fold_sum<T>(squares)) / static_cast<double>(width);
    scale = static_cast<T>(1 / __builtin_sqrt(variance + static_cast<double>(epsilon)));
  }
};

template <class T>
void layer_norm_forward(const nn::LayerNormBlock<T>& block) noexcept {
  for (size_t row = 0; row < block.rows; ++row) {
    const T* x = block.x + row * block.width;
    T* y = block.y + row * block.width;
    const RowStatistics<T> of(x, block.width, block.epsilon);
    for_each_vector<T>(block.width, [&](size_t, size_t i, size_t n) POLYHEAD_INLINE_LAMBDA {
      const Vec<T> normal = (load_row(x + i, 1, n) - splat(of.mean)) * splat(of.scale);
      const Vec<T> weight = load_row(block.weight + i, 1, n);
      store_row(y + i, 1, fma(normal, weight, load_row(block.bias + i, 1, n)), n);
    });
  }
}

// The two means of d_x, then d_x; the sums over rows on the way.
template <class T>
POLYHEAD_INLINE void layer_norm_backward_row(const nn::LayerNormBlock<T>& block, size_t row) {
  const T* x = block.x + row * block.width;
  const T* d_y = block.d_y + row * block.width;
  const RowStatistics<T> of(x, block.width, block.epsilon);
  Vec<T> sum[kGroupVectors] = {}, with_normal[kGroupVectors] = {};
  for_each_vector<T>(block.width, [&](size_t v, size_t i, size_t n) POLYHEAD_INLINE_LAMBDA {
    const Vec<T> normal = (load_row(x + i, 1, n) - splat(of.mean)) * splat(of.scale);
    const Vec<T> d = load_row(d_y + i, 1, n);
    const Vec<T> d_normal = d * load_row(block.weight + i, 1, n);
    sum[v] += d_normal;
    with_normal[v] = fma(d_normal, normal, with_normal[v]);
    T *d_weight = block.d_weight + i, *d_bias = block.d_bias + i;
    store_row(d_weight, 1, fma(d, normal, load_row(d_weight, 1, n)), n);
    store_row(d_bias, 1, load_row(d_bias, 1, n) + d, n);
  });
  if (!block.d_x) return;
  T* d_x = block.d_x + row * block.width;
  const T n_inverse = T{1} / static_cast<T>(block.width);
  const T mean = fold_sum<T>(sum) * n_inverse, slope = fold_sum<T>(with_normal) * n_inverse;
  for_each_vector<T>(block.width, [&](size_t, size_t i, size_t n) POLYHEAD_INLINE_LAMBDA {
    const Vec<T> normal = (load_row(x + i, 1, n) - splat(of.mean)) * splat(of.scale);
    const Vec<T> d_normal = load_row(d_y + i, 1, n) * load_row(block.weight + i, 1, n);
    const Vec<T> d = fma(normal, splat(-slope), d_normal - splat(mean)) * splat(of.scale);
    store_row(d_x + i, 1, d, n);
  });
}

template <class T>
void layer_norm_backward(const nn::LayerNormBlock<T>& block) noexcept {
  for (size_t row = 0; row < block.rows; ++row) layer_norm_backward_row(block, row);
}

template <class T>
nn::LayerNormKernel<T> make_layer_norm_kernel() {
  return {layer_norm_forward<T>, layer_norm_backward<T>};
}
