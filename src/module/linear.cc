#include "module/linear.h"

namespace polyhead {
namespace {

template <class T>
void run_plain(const ConstTensorView& weight, const Tensor& bias, const ConstTensorView& x,
               const TensorView& out) {
  const T* w = weight.data_as<T>();
  for (int64_t b = 0; b < x.size(0); ++b) {
    for (int64_t i = 0; i < x.size(1); ++i) {
      const T* row = x.data_as<T>() + b * x.stride(0) + i * x.stride(1);
      for (int64_t n = 0; n < weight.size(0); ++n) {
        T sum = bias.defined() ? bias.data_as<T>()[n] : 0;
        for (int64_t k = 0; k < weight.size(1); ++k) {
          sum += row[k * x.stride(2)] * w[n * weight.size(1) + k];
        }
        out.data_as<T>()[b * out.stride(0) + i * out.stride(1) + n * out.stride(2)] = sum;
      }
    }
  }
}

}  // namespace

PackedLinear::PackedLinear(const ConstTensorView& weight, const ConstTensorView& bias)
    : in_features_(weight.size(1)), out_features_(weight.size(0)), weight_(weight) {
  if (bias.defined()) bias_ = Tensor(bias);
}

void PackedLinear::run(const ConstTensorView& x, const TensorView& out) const {
  if (weight_.dtype() == DType::kFloat32) {
    run_plain<float>(weight_, bias_, x, out);
  } else {
    run_plain<double>(weight_, bias_, x, out);
  }
}

}  // namespace polyhead
