// The distributions of torch's initialisation, drawn in torch's order from our own generator.
//
// SplitMix64: state += 0x9e3779b97f4a7c15, then two xor-shift-multiplies; a uniform number is the
// top 53 bits. The normal distribution is sampled exactly by comparing uniform numbers (Karney,
// "Sampling exactly from the normal distribution", 2016), so that no value depends on a libm.
#pragma once

#include <cstdint>

#include "module/attention_parameters.h"

namespace polyhead {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t bits();
  double uniform();  // [0, 1), a multiple of 2^-53
  double normal();   // mean 0, deviation 1

 private:
  bool accept_exp(double p);  // true with probability exp(-p), 0 <= p <= 1

  uint64_t state_;
};

// nn.MultiheadAttention: out_proj.weight U(+-1/sqrt(E)), a bias draw that is dropped, in-projection
// weights U(+-sqrt(6 / (rows + columns))), biases 0, bias_k and bias_v N(0, 1/E).
void initialise_mha(AttentionParameters& parameters, uint64_t seed);
// nn.Linear's default for q_linear, k_linear, v_linear, fc_out: U(+-1/sqrt(in_features)).
void initialise_scratch(AttentionParameters& parameters, uint64_t seed);

}  // namespace polyhead
