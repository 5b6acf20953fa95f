#include "nn/layer_norm.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <polyhead/nn/layers.h>
#include "base/float_env.h"
#include "base/float_type.h"
#include "base/parallel_tasks.h"
#include "nn/checks.h"
#include "nn/region.h"
#include "simd/regions.h"

#define POLYHEAD_KERNEL_BODY "nn/layer_norm.body.h"
#include "simd/for_each_isa.h"

namespace polyhead::nn {
namespace {

template <class T>
LayerNormKernel<T> layer_norm_kernel(Isa isa) {
  return POLYHEAD_ON_ISA(isa, make_layer_norm_kernel<T>());
}

// Rows of one task. Each sums its rows for d_weight and d_bias, and the tasks' sums are added in
// order: which rows are one task must not depend on threads.
constexpr size_t kTaskRows = 32;
constexpr double kFlopsPerElement = 20;  // in time, of either direction

template <class T>
LayerNormBlock<T> rows_of_task(const LayerNormBlock<T>& whole, size_t task) {
  LayerNormBlock<T> block = whole;
  const size_t first = task * kTaskRows, at = first * whole.width;
  block.rows = std::min(kTaskRows, whole.rows - first);
  block.x += at;
  if (block.y) block.y += at;
  if (block.d_y) block.d_y += at;
  if (block.d_x) block.d_x += at;
  return block;
}

template <class T>
double flops_of(const LayerNormBlock<T>& block) {
  return kFlopsPerElement * static_cast<double>(block.rows * block.width);
}

template <class T>
void run_forward(const LayerNormBlock<T>& whole) {
  const LayerNormKernel<T> kernel = layer_norm_kernel<T>(isa_in_use());
  const size_t tasks = (whole.rows + kTaskRows - 1) / kTaskRows;
  parallel_tasks(tasks, flops_of(whole), 0,
                 [&](size_t task, std::byte*) { kernel.forward(rows_of_task(whole, task)); });
}

// sums [tasks, 2, width] -> d_weight and d_bias of the block: in order, and old + sum.
template <class T>
void add_up(T* sums, size_t tasks, const LayerNormBlock<T>& whole, bool accumulate) {
  const size_t stride = 2 * whole.width;
  for (size_t task = 1; task < tasks; ++task) {
    for (size_t i = 0; i < stride; ++i) sums[i] += sums[task * stride + i];
  }
  for (size_t i = 0; i < whole.width; ++i) {
    const T weight = sums[i], bias = sums[whole.width + i];
    whole.d_weight[i] = accumulate ? whole.d_weight[i] + weight : weight;
    whole.d_bias[i] = accumulate ? whole.d_bias[i] + bias : bias;
  }
}

template <class T>
void run_backward(const LayerNormBlock<T>& whole, bool accumulate) {
  const LayerNormKernel<T> kernel = layer_norm_kernel<T>(isa_in_use());
  const size_t tasks = (whole.rows + kTaskRows - 1) / kTaskRows;
  std::vector<T> sums(std::max<size_t>(tasks, 1) * 2 * whole.width);
  parallel_tasks(tasks, flops_of(whole), 0, [&](size_t task, std::byte*) {
    LayerNormBlock<T> block = rows_of_task(whole, task);
    block.d_weight = sums.data() + 2 * task * whole.width;
    block.d_bias = block.d_weight + whole.width;
    kernel.backward(block);
  });
  add_up(sums.data(), tasks, whole, accumulate);
}

Tensor filled(int64_t width, double value, DType dtype) {
  const Require require("LayerNorm");
  if (width < 1) require.fail("width", std::to_string(width), "at least 1");
  require_float_type(require, dtype);
  Tensor tensor(dtype, {width});
  fill_floats(tensor, [value] { return value; });
  return tensor;
}

template <class T>
LayerNormBlock<T> block_of(const ConstTensorView& x, const ConstTensorView& weight,
                           double epsilon) {
  LayerNormBlock<T> block;
  block.width = static_cast<size_t>(weight.size(0));
  block.rows = static_cast<size_t>(x.numel()) / block.width;
  block.epsilon = static_cast<T>(epsilon);
  block.x = x.data_as<T>();
  block.weight = weight.data_as<T>();
  return block;
}

}  // namespace

LayerNorm::LayerNorm(int64_t width, double epsilon, DType dtype)
    : LayerNorm(filled(width, 1, dtype), filled(width, 0, dtype), epsilon) {}

LayerNorm::LayerNorm(const ConstTensorView& weight, const ConstTensorView& bias, double epsilon)
    : weight_(weight), bias_(bias), epsilon_(epsilon) {
  const Require require("LayerNorm");
  require_float(require, weight, "weight");
  if (weight.rank() != 1 || weight.size(0) < 1) {
    require.fail("weight", "shape is " + weight.shape_string(), "[width], width at least 1");
  }
  require_like(require, bias_, "bias", weight_);
  if (!(epsilon >= 0)) require.fail("epsilon", message(epsilon), "0 or more");
  d_weight_ = Tensor(weight.dtype(), weight.shape());
  d_bias_ = Tensor(weight.dtype(), weight.shape());
}

void LayerNorm::check_input(const char* function, const ConstTensorView& x) const {
  const Require require(function);
  const Rows rows(require, x, "x");
  require_dtype(require, x, "x", weight_.dtype());
  if (rows.width == static_cast<size_t>(weight_.size(0))) return;
  require.fail("x", "shape is " + x.shape_string(), message("[..., ", weight_.size(0), "]"));
}

Tensor LayerNorm::forward(const ConstTensorView& x) const {
  Tensor y(x.dtype(), x.shape());
  forward_into(x, y);
  return y;
}

void LayerNorm::forward_into(const ConstTensorView& x, const TensorView& y) const {
  const Require require("LayerNorm::forward");
  check_input("LayerNorm::forward", x);
  require_like(require, y, "y", x);
  require_same_or_apart(require, y, "y", x);
  with_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    LayerNormBlock<T> block = block_of<T>(x, weight_, epsilon_);
    block.bias = bias_.data_as<T>();
    block.y = y.data_as<T>();
    run_forward(block);
  });
}

void LayerNorm::backward(const ConstTensorView& x, const ConstTensorView& d_y,
                         const TensorView& d_x, bool accumulate) {
  const DefaultFloatEnv env;
  const Require require("LayerNorm::backward");
  check_input("LayerNorm::backward", x);
  require_like(require, d_y, "d_y", x);
  if (d_x.defined()) {
    require_like(require, d_x, "d_x", x);
    require_same_or_apart(require, d_x, "d_x", x);
    require_same_or_apart(require, d_x, "d_x", d_y);
  }
  with_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    LayerNormBlock<T> block = block_of<T>(x, weight_, epsilon_);
    block.d_y = d_y.data_as<T>();
    if (d_x.defined()) block.d_x = d_x.data_as<T>();
    block.d_weight = d_weight_.data_as<T>();
    block.d_bias = d_bias_.data_as<T>();
    run_backward(block, accumulate);
  });
}

ParameterList LayerNorm::parameters() {
  ParameterList list;
  list.add("weight", weight_, d_weight_);
  list.add("bias", bias_, d_bias_);
  return list;
}

}  // namespace polyhead::nn
