#include "demo/bert_layers.h"

#include <algorithm>
#include <cmath>

#include "base/message.h"
#include "base/thread_pool.h"

namespace polyhead::cli {
namespace {

// 0.5 x (1 + erf(x / sqrt 2)): the exact one, as BERT was trained.
float gelu(float x) { return 0.5F * x * (1.0F + std::erf(x * static_cast<float>(M_SQRT1_2))); }

void normalize_row(float* x, int64_t width, const float* gain, const float* bias, double epsilon) {
  double mean = 0, variance = 0;
  for (int64_t i = 0; i < width; ++i) mean += x[i];
  mean /= static_cast<double>(width);
  for (int64_t i = 0; i < width; ++i) variance += (x[i] - mean) * (x[i] - mean);
  variance /= static_cast<double>(width);
  const double factor = 1 / std::sqrt(variance + epsilon);
  for (int64_t i = 0; i < width; ++i) {
    x[i] = static_cast<float>((x[i] - mean) * factor * gain[i] + bias[i]);
  }
}

PackedLinear read_linear(const SafetensorsFile& file, const std::string& name, int64_t in,
                         int64_t out) {
  return PackedLinear(read_tensor(file, name + ".weight", {out, in}),
                      read_tensor(file, name + ".bias", {out}));
}

}  // namespace

Tensor read_tensor(const SafetensorsFile& file, const std::string& name,
                   const std::vector<int64_t>& shape) {
  const std::string where = message(file.path(), ": ", name, ": ");
  if (file.find(name) == nullptr) throw IoError(where + "is missing; a BERT encoder has it");
  Tensor tensor = file.read_widened(name);
  if (tensor.dtype() != DType::kFloat32 ||
      !std::equal(shape.begin(), shape.end(), tensor.shape().begin(), tensor.shape().end())) {
    throw IoError(message(where, "is ", dtype_name(tensor.dtype()), " ", tensor.shape_string(),
                          "; config.json needs float32 ",
                          Tensor(DType::kFloat32, Shape(shape)).shape_string()));
  }
  return tensor;
}

LayerNorm::LayerNorm(const SafetensorsFile& file, const std::string& name, int64_t width,
                     double epsilon)
    : gain_(read_tensor(file, name + ".weight", {width})),
      bias_(read_tensor(file, name + ".bias", {width})),
      epsilon_(epsilon) {}

void LayerNorm::run(Tensor* x) const {
  const int64_t width = x->size(2);
  auto* data = x->data_as<float>();
  parallel_for(static_cast<size_t>(x->numel() / width), [&](size_t row) {
    normalize_row(data + static_cast<int64_t>(row) * width, width, gain_.data_as<float>(),
                  bias_.data_as<float>(), epsilon_);
  });
}

FeedForward::FeedForward(const SafetensorsFile& file, const std::string& layer, int64_t width,
                         int64_t inner)
    : widen_(read_linear(file, layer + "intermediate.dense", width, inner)),
      narrow_(read_linear(file, layer + "output.dense", inner, width)) {}

Tensor FeedForward::run(const Tensor& x) const {
  Tensor inner(DType::kFloat32, {x.size(0), x.size(1), widen_.out_features()});
  widen_.run(x, inner);
  auto* data = inner.data_as<float>();
  const int64_t width = widen_.out_features();
  parallel_for(static_cast<size_t>(inner.numel() / width), [&](size_t row) {
    float* from = data + static_cast<int64_t>(row) * width;
    std::transform(from, from + width, from, gelu);
  });
  Tensor out(DType::kFloat32, x.shape());
  narrow_.run(inner, out);
  return out;
}

void add_to(const Tensor& y, Tensor* x) {
  const auto* from = y.data_as<float>();
  auto* to = x->data_as<float>();
  for (int64_t i = 0; i < x->numel(); ++i) to[i] += from[i];
}

}  // namespace polyhead::cli
