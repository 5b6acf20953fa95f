// What the tests of this folder share: random tensors and modules with random parameters.
#pragma once

#include <string>
#include <vector>

#include <polyhead/multihead_attention.h>
#include "testing/elements.h"
#include "testing/random.h"

namespace polyhead::oracle {

inline Tensor random_tensor(DType dtype, std::initializer_list<int64_t> shape, uint64_t seed,
                            double deviation = 1) {
  Random random(seed);
  Tensor tensor(dtype, shape);
  fill_with(tensor, [&](const Index&) { return deviation * random.normal(); });
  return tensor;
}

// True with probability 0.4, but never in the first key: no row is empty, causal or not.
inline Tensor random_hidden(std::initializer_list<int64_t> shape, uint64_t seed) {
  Random random(seed);
  Tensor mask(DType::kBool, shape);
  const int64_t keys = mask.size(mask.rank() - 1);
  for (int64_t i = 0; i < mask.numel(); ++i) {
    mask.data_as<bool>()[i] = random.uniform() < 0.4 && i % keys != 0;
  }
  return mask;
}

// Biases too: torch initialises them to zero, which would hide them from a test; and norms, which
// are one.
template <class Module>
void randomise_biases(Module& module, uint64_t seed) {
  Random random(seed);
  for (const auto& [name, view] : module.state_dict()) {
    const bool norm = name.find("norm") != std::string::npos;
    if (name.find("bias") == std::string::npos && !norm) continue;
    Tensor values(view);
    fill_with(values, [&](const Index&) { return (norm ? 1 : 0) + 0.5 * random.normal(); });
    module.set_parameter(name, values);
  }
}

inline MultiheadAttention random_mha(const MultiheadAttention::Config& config, uint64_t seed = 7) {
  MultiheadAttention module(config, seed);
  randomise_biases(module, seed + 1);
  return module;
}

// The same numbers in the other float type.
inline Tensor converted(const ConstTensorView& from, DType dtype) {
  Tensor to(dtype, from.shape());
  fill_with(to, [&](const Index& index) { return read(from, index); });
  return to;
}

}  // namespace polyhead::oracle
