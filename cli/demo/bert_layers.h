// The parts of a BERT encoder around its attention. For the demo: clear rather than fast, float32.
//
// Unlike the library's kernels they lean on the C library's erf, so their bits hold for one machine
// (any threads, any ISA that is forced), not for all.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <polyhead/polyhead.h>
#include <polyhead/linear.h>

namespace polyhead::cli {

// A tensor of the model's file, in float32. Throws IoError if it is missing or of another shape.
Tensor read_tensor(const SafetensorsFile& file, const std::string& name,
                   const std::vector<int64_t>& shape);

// x <- (x - mean) / sqrt(variance + epsilon) * gain + bias, along the last dimension.
class LayerNorm {
 public:
  LayerNorm() = default;
  LayerNorm(const SafetensorsFile& file, const std::string& name, int64_t width, double epsilon);
  void run(Tensor* x) const;  // [batch, len, width]

 private:
  Tensor gain_, bias_;  // [width]
  double epsilon_ = 0;
};

// gelu(x . W1^T + b1) . W2^T + b2
class FeedForward {
 public:
  FeedForward() = default;
  FeedForward(const SafetensorsFile& file, const std::string& layer, int64_t width, int64_t inner);
  Tensor run(const Tensor& x) const;  // [batch, len, width] -> the same shape

 private:
  PackedLinear widen_, narrow_;
};

void add_to(const Tensor& y, Tensor* x);  // x <- x + y, one shape

}  // namespace polyhead::cli
