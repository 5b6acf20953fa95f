// The distributions of torch's initialisation, drawn in torch's order from our own generator.
#pragma once

#include <cstdint>

#include "module/attention_parameters.h"

namespace polyhead {

// nn.MultiheadAttention: out_proj.weight U(+-1/sqrt(E)), a bias draw that is dropped, in-projection
// weights U(+-sqrt(6 / (rows + columns))), biases 0, bias_k and bias_v N(0, 1/E); norms 1.
void initialise_mha(AttentionParameters& parameters, uint64_t seed);
// nn.Linear's default for q_linear, k_linear, v_linear, fc_out: U(+-1/sqrt(in_features)).
void initialise_scratch(AttentionParameters& parameters, uint64_t seed);

}  // namespace polyhead
