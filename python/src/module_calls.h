// Forward and backward of the modules, from Python's arguments.
#pragma once

#include <nanobind/nanobind.h>
#include <polyhead/multihead_attention.h>

#include <array>
#include <vector>

#include "arrays.h"

namespace polyhead::python {

// A TrainingContext, and the arrays that the library goes on reading until backward has run.
struct Context {
  TrainingContext context;
  std::vector<Input> kept;
};

// How forward_mha is called besides its options' words and flags. None: not given.
struct MhaArguments {
  std::array<nb::handle, 5> inputs;  // query, key, value, key_padding_mask, attn_mask
  nb::handle outputs;                // (out, weights) to write to; None: new numpy arrays
  Context* context;                  // null: not of training
};

// (out, weights or None): those given, or new.
nb::object forward_mha(const MultiheadAttention& module, const MhaArguments& arguments,
                       ForwardOptions options);

struct ScratchArguments {
  std::array<nb::handle, 4> inputs;  // q, k, v, mask
  nb::handle out;                    // to write to; None: a new numpy array
  Context* context;
};
nb::object forward_scratch(const FromScratchMultiHeadAttention& module,
                           const ScratchArguments& arguments);

// d_outputs: (d_out, d_weights); d_inputs: (d_query, d_key, d_value, d_attn_mask,
// d_key_padding_mask), None where not wanted; d_parameters: {} or, for each parameter in the
// order of the state dict, {name: array or None}; overwritten, or added to.
template <class Module>
void backward(const Module& module, const Context& context,
              const std::array<nb::object, 2>& d_outputs, const std::array<nb::object, 5>& d_inputs,
              const nb::dict& d_parameters, bool accumulate);

extern template void backward(const MultiheadAttention&, const Context&,
                              const std::array<nb::object, 2>&, const std::array<nb::object, 5>&,
                              const nb::dict&, bool);
extern template void backward(const FromScratchMultiHeadAttention&, const Context&,
                              const std::array<nb::object, 2>&, const std::array<nb::object, 5>&,
                              const nb::dict&, bool);

}  // namespace polyhead::python
