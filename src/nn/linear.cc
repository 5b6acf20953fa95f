#include <polyhead/linear.h>

#include <cmath>
#include <utility>
#include <vector>

#include <polyhead/nn/layers.h>
#include "base/float_env.h"
#include "base/float_type.h"
#include "module/linear_product.h"
#include "nn/checks.h"

namespace polyhead::nn {

struct Linear::Impl {
  Tensor weight, d_weight;  // [out_features, in_features]
  Tensor bias, d_bias;      // [out_features] or undefined
  PackedLinear packed;

  Impl(const ConstTensorView& given_weight, const ConstTensorView& given_bias)
      : weight(given_weight), bias(given_bias), packed(given_weight, given_bias) {
    d_weight = Tensor(weight.dtype(), weight.shape());
    if (bias.defined()) d_bias = Tensor(bias.dtype(), bias.shape());
  }

  void repack() { packed.assign(weight, std::as_const(bias).view()); }
};

namespace {

Tensor uniform(DType dtype, std::initializer_list<int64_t> shape, double bound, Random& random) {
  Tensor tensor(dtype, shape);
  fill_floats(tensor, [&] { return bound * (2 * random.uniform() - 1); });
  return tensor;
}

}  // namespace

Linear::Linear(const ConstTensorView& weight, const ConstTensorView& bias) {
  if (weight.defined() && weight.rank() == 2 && weight.numel() == 0) {
    Require("Linear").fail("weight", "shape is " + weight.shape_string(),
                           "[out_features, in_features], at least 1 each");
  }
  impl_ = std::make_unique<Impl>(weight, bias);
}

// torch's nn.Linear: weight and bias U(+-1 / sqrt(in_features)).
Linear::Linear(const Config& config, Random& random) {
  if (config.in_features < 1 || config.out_features < 1) {
    Require("Linear").fail(
        "config",
        message("in_features is ", config.in_features, ", out_features ", config.out_features),
        "at least 1");
  }
  require_float_type(Require("Linear"), config.dtype);
  const DefaultFloatEnv env;
  const double bound = 1 / std::sqrt(static_cast<double>(config.in_features));
  const Tensor weight =
      uniform(config.dtype, {config.out_features, config.in_features}, bound, random);
  Tensor bias;
  if (config.bias) bias = uniform(config.dtype, {config.out_features}, bound, random);
  impl_ = std::make_unique<Impl>(weight, std::as_const(bias).view());
}

Linear::Linear(Linear&&) noexcept = default;
Linear& Linear::operator=(Linear&&) noexcept = default;
Linear::~Linear() = default;

int64_t Linear::in_features() const { return impl_->packed.in_features(); }
int64_t Linear::out_features() const { return impl_->packed.out_features(); }

Tensor Linear::forward(const ConstTensorView& x) const {
  std::vector<int64_t> shape(x.shape().begin(), x.shape().end());
  if (!shape.empty()) shape.back() = out_features();
  Tensor y(x.dtype(), shape);
  forward_into(x, y);
  return y;
}

void Linear::forward_into(const ConstTensorView& x, const TensorView& y) const {
  impl_->packed.run(x, y);
}

void Linear::backward(const ConstTensorView& x, const ConstTensorView& d_y, const TensorView& d_x,
                      bool accumulate) {
  if (d_x.defined()) {  // all of it that can fail comes before the first gradient
    const Require require("Linear::backward");
    const DType dtype = impl_->packed.dtype();
    const LinearOperand in(require, x, "x", dtype), to(require, d_x, "d_x", dtype);
    to.require_features(in.features, require, "d_x");
    to.require_rows_of(in, require, "d_x", "x");
    require_apart(require, d_x, "d_x", d_y, "d_y");
    impl_->packed.prepare_input_gradient();
  }
  linear_weight_gradient(x, d_y, impl_->d_weight, impl_->d_bias.view(), accumulate);
  if (d_x.defined()) impl_->packed.input_gradient(d_y, d_x);
}

ParameterList Linear::parameters() {
  ParameterList list;
  list.add("weight", impl_->weight, impl_->d_weight);
  if (impl_->bias.defined()) list.add("bias", impl_->bias, impl_->d_bias);
  list.on_update([impl = impl_.get()] { impl->repack(); });
  return list;
}

}  // namespace polyhead::nn
