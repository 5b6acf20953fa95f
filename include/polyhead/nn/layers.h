// Layers with parameters: Linear, LayerNorm, Embedding.
//
//   nn::Random random{.seed = 1};
//   nn::Linear head({.in_features = 64, .out_features = 100}, random);
//   Tensor logits = head.forward(x);
//   head.backward(x, d_logits, d_x);
//
// float32 or float64. Views are row-major without gaps unless something else is said; every
// function throws InvalidArgument for shapes or dtypes that do not fit, before it writes anything.
// forward is safe from many threads. A backward writes the gradients of its parameters, or with
// `accumulate` adds to what they hold; d_x undefined: not wanted. An output shares no memory with
// an input, which is refused, unless something else is said. Initial values are of torch's
// distributions.
#pragma once

#include <cstdint>
#include <memory>

#include <polyhead/linear.h>
#include <polyhead/nn/parameter.h>
#include <polyhead/nn/random.h>
#include <polyhead/tensor_view.h>

#pragma GCC visibility push(default)
namespace polyhead::nn {

// y = x . weight^T + bias
class Linear {
 public:
  struct Config {
    int64_t in_features = 0, out_features = 0;
    bool bias = true;
    DType dtype = DType::kFloat32;
  };
  Linear(const Config& config, Random& random);
  // weight [out_features, in_features], bias [out_features] or undefined; copied.
  Linear(const ConstTensorView& weight, const ConstTensorView& bias);

  // x [batch, len, in_features] or [rows, in_features], any strides.
  Tensor forward(const ConstTensorView& x) const;
  void forward_into(const ConstTensorView& x, const TensorView& y) const;
  // d_x may be x.
  void backward(const ConstTensorView& x, const ConstTensorView& d_y, const TensorView& d_x,
                bool accumulate = false);

  ParameterList parameters();  // weight, bias
  int64_t in_features() const;
  int64_t out_features() const;

  Linear(Linear&&) noexcept;
  Linear& operator=(Linear&&) noexcept;
  ~Linear();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// y = (x - mean) / sqrt(variance + epsilon) * weight + bias, over the last dimension.
class LayerNorm {
 public:
  explicit LayerNorm(int64_t width, double epsilon = 1e-5, DType dtype = DType::kFloat32);
  // weight, bias [width]; copied.
  LayerNorm(const ConstTensorView& weight, const ConstTensorView& bias, double epsilon = 1e-5);

  // x [..., width]; y may be x.
  Tensor forward(const ConstTensorView& x) const;
  void forward_into(const ConstTensorView& x, const TensorView& y) const;
  // d_x may be d_y or x.
  void backward(const ConstTensorView& x, const ConstTensorView& d_y, const TensorView& d_x,
                bool accumulate = false);

  ParameterList parameters();  // weight, bias

 private:
  void check_input(const char* function, const ConstTensorView& x) const;

  Tensor weight_, bias_, d_weight_, d_bias_;  // [width]
  double epsilon_;
};

// y = weight[ids]
class Embedding {
 public:
  // weight [count, width]
  Embedding(int64_t count, int64_t width, Random& random, DType dtype = DType::kFloat32);
  explicit Embedding(const ConstTensorView& weight);  // copied

  // ids int64 [...], each in [0, count) -> [..., width]
  Tensor forward(const ConstTensorView& ids) const;
  void forward_into(const ConstTensorView& ids, const TensorView& y) const;
  void backward(const ConstTensorView& ids, const ConstTensorView& d_y, bool accumulate = false);

  ParameterList parameters();  // weight

 private:
  Tensor weight_, d_weight_;  // [count, width]
};

}  // namespace polyhead::nn
#pragma GCC visibility pop
