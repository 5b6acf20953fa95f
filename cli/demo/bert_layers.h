// The parts of a BERT encoder around its attention, in float32: those of polyhead::nn, with weights
// from the model's file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <polyhead/nn.h>

namespace polyhead::cli {

// A tensor of the model's file, in float32. Throws IoError if it is missing or of another shape.
Tensor read_tensor(const SafetensorsFile& file, const std::string& name,
                   const std::vector<int64_t>& shape);

nn::LayerNorm read_layer_norm(const SafetensorsFile& file, const std::string& name, int64_t width,
                              double epsilon);

// gelu(x . W1^T + b1) . W2^T + b2
class FeedForward {
 public:
  FeedForward() = default;
  FeedForward(const SafetensorsFile& file, const std::string& layer, int64_t width, int64_t inner);
  Tensor run(const Tensor& x) const;  // [batch, len, width] -> the same shape

 private:
  PackedLinear widen_, narrow_;
};

}  // namespace polyhead::cli
