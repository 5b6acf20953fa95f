#include "module_calls.h"

#include <nanobind/stl/string.h>

#include <string>
#include <utility>

namespace polyhead::python {
namespace {

// Where a forward writes: memory the caller gave, or a new array.
struct Results {
  nb::object out, weights = nb::none();
  Output given_out, given_weights;  // keep the caller's memory
  ForwardOutputs views;

  void take(NewArray new_out, NewArray new_weights) {
    views = {new_out.view, new_weights.view};
    out = std::move(new_out.array);
    if (new_weights.view.defined()) weights = std::move(new_weights.array);
  }

  void take(nb::handle outputs) {
    const auto pair = nb::cast<nb::tuple>(outputs);
    out = pair[0];
    weights = pair[1];
    given_out = output(out, "forward: out");
    given_weights = optional_output(weights, "forward: weights");
    views = {given_out.view, given_weights.view};
  }
};

// Weights [B, L, S'] or [B, H, L, S'], of an unbatched call without B. The module refuses inputs of
// other ranks; then there is nothing to allocate.
NewArray new_weights(const MultiheadAttention::Config& config, const ConstTensorView& query,
                     const ConstTensorView& key, WeightsMode mode) {
  const int rank = query.rank();
  if (mode == WeightsMode::kNone || rank < 2 || rank > 3 || key.rank() != rank) return {};
  const bool sequence_first = rank == 3 && config.layout == Layout::kSequenceFirst;
  const int length_dim = sequence_first ? 0 : rank - 2;
  std::vector<int64_t> shape;
  if (rank == 3) shape.push_back(query.size(sequence_first ? 1 : 0));
  if (mode == WeightsMode::kPerHead) shape.push_back(config.num_heads);
  shape.push_back(query.size(length_dim));
  shape.push_back(key.size(length_dim) + config.add_bias_kv + config.add_zero_attn);
  return new_array(shape, config.dtype);
}

// query, key, value; one import where they are one object, as in self-attention.
std::vector<Input> operands(const std::array<nb::handle, 3>& objects,
                            const std::array<const char*, 3>& arguments) {
  std::vector<Input> inputs;
  inputs.reserve(5);  // masks follow
  for (size_t i = 0; i < objects.size(); ++i) {
    const bool same = i > 0 && objects[i].is(objects[i - 1]);
    inputs.push_back(same ? inputs.back() : input(objects[i], arguments[i]));
  }
  return inputs;
}

// {name: array or None} as views; `kept` holds the memory.
ParameterViews writable_views(const nb::dict& arrays, std::vector<Output>* kept) {
  ParameterViews views;
  for (const auto& [name, array] : arrays) {
    const auto text = nb::cast<std::string>(name);
    kept->push_back(optional_output(array, text.c_str()));
    views.emplace_back(text, kept->back().view);
  }
  return views;
}

}  // namespace

nb::object forward_mha(const MultiheadAttention& module, const MhaArguments& arguments,
                       ForwardOptions options) {
  const auto& [query, key, value, key_padding_mask, attn_mask] = arguments.inputs;
  std::vector<Input> inputs = operands(
      {query, key, value},
      {"MultiheadAttention: query", "MultiheadAttention: key", "MultiheadAttention: value"});
  inputs.push_back(optional_input(key_padding_mask, "MultiheadAttention: key_padding_mask"));
  inputs.push_back(optional_input(attn_mask, "MultiheadAttention: attn_mask"));
  const ConstTensorView &q = inputs[0].view, &k = inputs[1].view, &v = inputs[2].view;
  options.key_padding_mask = inputs[3].view;
  options.attn_mask = inputs[4].view;
  const MultiheadAttention::Config& config = module.config();
  Results results;
  if (arguments.outputs.is_none()) {
    results.take(new_array(q.shape(), config.dtype),
                 new_weights(config, q, k, options.need_weights));
  } else {
    results.take(arguments.outputs);
  }
  Context* const context = arguments.context;
  {
    nb::gil_scoped_release others_may_run;
    if (context == nullptr) {
      module.forward_into(q, k, v, options, results.views.out, results.views.weights);
    } else {
      module.forward_into(q, k, v, options, results.views, &context->context);
    }
  }
  if (context != nullptr) context->kept = std::move(inputs);
  return nb::make_tuple(results.out, results.weights);
}

nb::object forward_scratch(const FromScratchMultiHeadAttention& module,
                           const ScratchArguments& arguments) {
  const auto& [q, k, v, mask] = arguments.inputs;
  std::vector<Input> inputs =
      operands({q, k, v}, {"FromScratchMultiHeadAttention: q", "FromScratchMultiHeadAttention: k",
                           "FromScratchMultiHeadAttention: v"});
  inputs.push_back(optional_input(mask, "FromScratchMultiHeadAttention: mask"));
  Results results;
  if (arguments.out.is_none()) {
    results.take(new_array(inputs[0].view.shape(), module.dtype()), {});
  } else {
    results.take(nb::make_tuple(arguments.out, nb::none()));
  }
  const ConstTensorView &qv = inputs[0].view, &kv = inputs[1].view, &vv = inputs[2].view;
  Context* const context = arguments.context;
  {
    nb::gil_scoped_release others_may_run;
    if (context == nullptr) {
      module.forward_into(qv, kv, vv, inputs[3].view, results.views.out);
    } else {
      module.forward_into(qv, kv, vv, inputs[3].view, results.views, &context->context);
    }
  }
  if (context != nullptr) context->kept = std::move(inputs);
  return results.out;
}

template <class Module>
void backward(const Module& module, const Context& context,
              const std::array<nb::object, 2>& d_outputs, const std::array<nb::object, 5>& d_inputs,
              const nb::dict& d_parameters, bool accumulate) {
  const Input d_out = input(d_outputs[0], "backward: d_out");
  const Input d_weights = optional_input(d_outputs[1], "backward: d_weights");
  const Output d_query = optional_output(d_inputs[0], "backward: d_query");
  const Output d_key = optional_output(d_inputs[1], "backward: d_key");
  const Output d_value = optional_output(d_inputs[2], "backward: d_value");
  const Output d_mask = optional_output(d_inputs[3], "backward: d_attn_mask");
  const Output d_padding = optional_output(d_inputs[4], "backward: d_key_padding_mask");
  std::vector<Output> kept;
  const ParameterViews parameters = writable_views(d_parameters, &kept);
  nb::gil_scoped_release others_may_run;
  module.backward(context.context, {d_out.view, d_weights.view},
                  {d_query.view, d_key.view, d_value.view, d_mask.view, d_padding.view}, parameters,
                  accumulate ? GradientMode::kAccumulate : GradientMode::kOverwrite);
}

template void backward(const MultiheadAttention&, const Context&, const std::array<nb::object, 2>&,
                       const std::array<nb::object, 5>&, const nb::dict&, bool);
template void backward(const FromScratchMultiHeadAttention&, const Context&,
                       const std::array<nb::object, 2>&, const std::array<nb::object, 5>&,
                       const nb::dict&, bool);

}  // namespace polyhead::python
