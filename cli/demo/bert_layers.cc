#include "demo/bert_layers.h"

#include <algorithm>

#include "base/message.h"

namespace polyhead::cli {
namespace {

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

nn::LayerNorm read_layer_norm(const SafetensorsFile& file, const std::string& name, int64_t width,
                              double epsilon) {
  return {read_tensor(file, name + ".weight", {width}), read_tensor(file, name + ".bias", {width}),
          epsilon};
}

FeedForward::FeedForward(const SafetensorsFile& file, const std::string& layer, int64_t width,
                         int64_t inner)
    : widen_(read_linear(file, layer + "intermediate.dense", width, inner)),
      narrow_(read_linear(file, layer + "output.dense", inner, width)) {}

Tensor FeedForward::run(const Tensor& x) const {
  Tensor inner(DType::kFloat32, {x.size(0), x.size(1), widen_.out_features()});
  widen_.run(x, inner);
  nn::gelu_into(inner, inner);
  Tensor out(DType::kFloat32, x.shape());
  narrow_.run(inner, out);
  return out;
}

}  // namespace polyhead::cli
