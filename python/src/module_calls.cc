#include "module_calls.h"

#include <vector>

#include "arrays.h"

namespace polyhead::python {
namespace {

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
                            const std::array<const char*, 3>& arguments, DType dtype) {
  std::vector<Input> inputs;
  inputs.reserve(3);
  for (size_t i = 0; i < objects.size(); ++i) {
    const bool same = i > 0 && objects[i].is(objects[i - 1]);
    inputs.push_back(same ? inputs.back() : input(objects[i], arguments[i], dtype_name(dtype)));
  }
  return inputs;
}

}  // namespace

nb::object forward_mha(const MultiheadAttention& module, const std::array<nb::handle, 5>& given,
                       ForwardOptions options) {
  const auto& [query, key, value, key_padding_mask, attn_mask] = given;
  const std::vector<Input> inputs = operands(
      {query, key, value},
      {"MultiheadAttention: query", "MultiheadAttention: key", "MultiheadAttention: value"},
      module.config().dtype);
  const bool is_wide = module.config().dtype == DType::kFloat64;
  const char* const of_masks = is_wide ? kBoolOrFloats : "bool or float32";
  const Input padding =
      optional_input(key_padding_mask, "MultiheadAttention: key_padding_mask", of_masks);
  const Input mask = optional_input(attn_mask, "MultiheadAttention: attn_mask", of_masks);
  const ConstTensorView &q = inputs[0].view, &k = inputs[1].view, &v = inputs[2].view;
  options.key_padding_mask = padding.view;
  options.attn_mask = mask.view;
  const MultiheadAttention::Config& config = module.config();
  const NewArray out = new_array(q.shape(), config.dtype);
  const NewArray weights = new_weights(config, q, k, options.need_weights);
  {
    nb::gil_scoped_release others_may_run;
    module.forward_into(q, k, v, options, out.view, weights.view);
  }
  return nb::make_tuple(out.array, weights.view.defined() ? weights.array : nb::none());
}

nb::object forward_scratch(const FromScratchMultiHeadAttention& module,
                           const std::array<nb::handle, 4>& given) {
  const auto& [q, k, v, mask] = given;
  const std::vector<Input> inputs =
      operands({q, k, v},
               {"FromScratchMultiHeadAttention: q", "FromScratchMultiHeadAttention: k",
                "FromScratchMultiHeadAttention: v"},
               module.dtype());
  const Input hidden = optional_input(mask, "FromScratchMultiHeadAttention: mask", kNumbers);
  const NewArray out = new_array(inputs[0].view.shape(), module.dtype());
  {
    nb::gil_scoped_release others_may_run;
    module.forward_into(inputs[0].view, inputs[1].view, inputs[2].view, hidden.view, out.view);
  }
  return out.array;
}

nb::object forward_cached_mha(const MultiheadAttention& module, nb::handle query,
                              SharedCache& cache, nb::handle lengths, int64_t sequence) {
  const DType dtype = module.config().dtype;
  const Input tokens = input(query, "MultiheadAttention: query", dtype_name(dtype));
  const Input counts = optional_input(lengths, "MultiheadAttention: lengths", kIntegers);
  const NewArray out = new_array(tokens.view.shape(), dtype);
  cache.change([&](KvCache& alone) {
    module.forward_cached_into(tokens.view, &alone, {.lengths = counts.view, .sequence = sequence},
                               out.view);
  });
  return out.array;
}

}  // namespace polyhead::python
