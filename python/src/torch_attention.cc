// The op on torch's tensors, [B, H, L, D] each, for a caller that allocates and differentiates.
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <polyhead/attention.h>

#include <array>
#include <optional>

#include "bind.h"
#include "structure.h"
#include "tensors.h"
#include "words.h"

namespace polyhead::python {
namespace {

namespace nb = nanobind;

// query, key, value, attn_mask; then what a Structure takes
using Inputs = std::array<nb::handle, 4 + kStructureTensors>;

// What a call is asked for besides its operands.
class OpOptions {
 public:
  OpOptions(const AttentionOptions& options, const Structure& structure, double mask_factor)
      : options_(options), structure_(structure), mask_factor_(mask_factor) {}

  // attn_mask: bool, true = attend; or numbers, times mask_factor added.
  AttentionOptions with(const Inputs& inputs) const {
    AttentionOptions options = options_;
    structure_.add_to(&options, {.sinks = tensor_view(inputs[4], "sinks"),
                                 .alibi_slopes = tensor_view(inputs[5], "alibi_slopes"),
                                 .key_lengths = tensor_view(inputs[6], "key_lengths"),
                                 .query_segments = tensor_view(inputs[7], "segments"),
                                 .key_segments = tensor_view(inputs[8], "segments"),
                                 .cu_seqlens_q = tensor_view(inputs[9], "cu_seqlens_q"),
                                 .cu_seqlens_k = tensor_view(inputs[10], "cu_seqlens_k")});
    const ConstTensorView attn_mask = tensor_view(inputs[3], "attn_mask");
    if (!attn_mask.defined()) return options;
    const bool is_soft = attn_mask.dtype() != DType::kBool || mask_factor_ != 1;
    options.masks.push_back(is_soft ? Mask::additive(attn_mask, mask_factor_)
                                    : Mask::boolean(attn_mask, MaskSense::kIncluded));
    return options;
  }

 private:
  AttentionOptions options_;
  Structure structure_;
  double mask_factor_;
};

Renames names_in(const AttentionOptions& options) {
  return names_of(options, options.cu_seqlens_q.defined() ? "packed_attention"
                                                          : "scaled_dot_product_attention");
}

// lse and what rounding took from it, of one tensor [2, B, H, L].
TensorView part_of_lse(nb::handle both, int64_t part) {
  const TensorView view = tensor_view(both, "lse");
  return view.defined() ? view.select(0, part) : view;
}

// outputs: out, lse, weights
void forward(const OpOptions& options, const Inputs& inputs,
             const std::array<nb::handle, 3>& outputs) {
  const ConstTensorView query = tensor_view(inputs[0], "query");
  const ConstTensorView key = tensor_view(inputs[1], "key");
  const ConstTensorView value = tensor_view(inputs[2], "value");
  const AttentionOptions all = options.with(inputs);
  const AttentionOutputs to{.out = tensor_view(outputs[0], "out"),
                            .lse = part_of_lse(outputs[1], 0),
                            .weights = tensor_view(outputs[2], "weights"),
                            .lse_rest = part_of_lse(outputs[1], 1)};
  nb::gil_scoped_release others_may_run;
  in_names([&] { return names_in(all); }, [&] { attention_forward(query, key, value, all, to); });
}

// saved: out, lse, d_out, d_weights; gradients: of the first inputs, up to the sinks
void backward(const OpOptions& options, const Inputs& inputs,
              const std::array<nb::handle, 4>& saved, const std::array<nb::handle, 5>& gradients) {
  const ConstTensorView query = tensor_view(inputs[0], "query");
  const ConstTensorView key = tensor_view(inputs[1], "key");
  const ConstTensorView value = tensor_view(inputs[2], "value");
  const AttentionOptions all = options.with(inputs);
  const AttentionBackwardInputs from{.out = tensor_view(saved[0], "out"),
                                     .lse = part_of_lse(saved[1], 0),
                                     .d_out = tensor_view(saved[2], "d_out"),
                                     .d_weights = tensor_view(saved[3], "d_weights"),
                                     .lse_rest = part_of_lse(saved[1], 1)};
  AttentionGradients to{tensor_view(gradients[0], "d_query"),
                        tensor_view(gradients[1], "d_key"),
                        tensor_view(gradients[2], "d_value"),
                        {},
                        tensor_view(gradients[4], "d_sinks")};
  const TensorView d_mask = tensor_view(gradients[3], "d_attn_mask");
  if (d_mask.defined()) {
    to.d_masks.resize(all.masks.size());
    to.d_masks.back() = d_mask;  // the causal mask, if any, comes first
  }
  nb::gil_scoped_release others_may_run;
  in_names([&] { return names_in(all); },
           [&] { attention_backward(query, key, value, all, from, to); });
}

}  // namespace

void bind_torch_attention(nb::module_& module) {
  nb::class_<OpOptions> type(module, "TorchOp");
  type.def(
      "__init__",
      [](OpOptions* self, std::optional<double> scale, bool is_causal, const char* align,
         std::optional<const char*> weights, const char* empty, double dropout_p, uint64_t seed,
         double mask_factor, nb::handle window, std::optional<int64_t> query_offset,
         double softcap) {
        const AttentionOptions options{.scale = scale,
                                       .softcap = softcap,
                                       .empty_rows = empty_rows(empty),
                                       .weights = weights_mode(weights),
                                       .dropout_p = dropout_p,
                                       .seed = seed};
        new (self) OpOptions(options, Structure(is_causal, align, window_of(window), query_offset),
                             mask_factor);
      },
      nb::arg("scale").none(), nb::arg("is_causal"), nb::arg("causal_align"),
      nb::arg("weights").none(), nb::arg("empty_rows"), nb::arg("dropout_p"), nb::arg("seed"),
      nb::arg("mask_factor"), nb::arg("window").none(), nb::arg("query_offset").none(),
      nb::arg("softcap"));
  type.def("forward", forward, nb::arg("inputs"), nb::arg("outputs"));
  type.def("backward", backward, nb::arg("inputs"), nb::arg("saved"), nb::arg("gradients"));
}

}  // namespace polyhead::python
