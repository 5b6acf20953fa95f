#include "op_options.h"

#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <polyhead/error.h>

#include <string>
#include <utility>

#include "renames.h"
#include "words.h"

namespace polyhead::python {
namespace {

constexpr const char* kNames[kStructureTensors] = {"sinks",       "alibi_slopes", "key_lengths",
                                                   "segments[0]", "segments[1]",  "cu_seqlens_q",
                                                   "cu_seqlens_k"};
constexpr size_t kFirstOfIntegers = 2;  // among them

}  // namespace

Options::Options(const char* function, nb::handle attn_mask, const AttentionOptions& base,
                 const Structure& structure, const std::optional<StructureArrays>& arrays,
                 nb::object score_mod)
    : function_(function),
      mask_(optional_input(attn_mask, titled("attn_mask").c_str(), kBoolOrFloats)),
      base_(base),
      structure_(structure) {
  // Integers would be taken as numbers, where 0 and 1 mean hidden and visible to most people.
  const DType dtype = mask_.view.dtype();
  if (dtype != DType::kBool && dtype != DType::kFloat32 && dtype != DType::kFloat64) {
    throw InvalidArgument(titled("attn_mask") + ": dtype is " + dtype_name(dtype) +
                          "; need bool (True = attend), float32 or float64");
  }
  for (size_t i = 0; arrays.has_value() && i < kStructureTensors; ++i) {
    arrays_[i] = optional_input((*arrays)[i], titled(kNames[i]).c_str(),
                                i < kFirstOfIntegers ? kFloats : kIntegers);
  }
  if (!score_mod.is_none()) score_mod_ = std::make_unique<ScoreFunction>(std::move(score_mod));
  ConstTensorView& lengths = arrays_[2].view;  // without a batch it may be one number
  if (lengths.defined() && lengths.rank() == 0) lengths = lengths.unsqueezed(0);
}

bool Options::tells_items_apart() const {
  const auto& [sinks, slopes, lengths, queries, keys, cu_q, cu_k] = arrays_;
  return slopes.view.rank() > 1 || lengths.view.defined() || queries.view.rank() > 1 ||
         keys.view.rank() > 1 || score_mod_;
}

void Options::rethrow() const {
  if (score_mod_) score_mod_->rethrow();
}

AttentionOptions Options::of_part(const ConstTensorView& mask, uint32_t part) const {
  const auto& [sinks, slopes, lengths, queries, keys, cu_q, cu_k] = arrays_;
  AttentionOptions options = base_;
  options.dropout_call = part;
  if (score_mod_) options.score_mod = score_mod_->mod();
  led_by(function_.c_str(), [&] {
    structure_.add_to(&options, {sinks.view, slopes.view, lengths.view, queries.view, keys.view,
                                 cu_q.view, cu_k.view});
  });
  if (mask.defined() && mask.dtype() == DType::kBool) {
    options.masks.push_back(Mask::boolean(mask, MaskSense::kIncluded));
  } else if (mask.defined()) {
    options.masks.push_back(Mask::additive(mask));
  }
  return options;
}

void bind_op_options(nb::module_& module) {
  nb::class_<Options>(module, "AttentionOptions")
      .def(
          "__init__",
          [](Options* self, const char* function, nb::handle attn_mask, double dropout_p,
             uint64_t seed, bool is_causal, std::optional<double> scale, const char* causal_align,
             std::optional<const char*> weights, const char* empty_rows_word, nb::handle window,
             std::optional<int64_t> query_offset, double softcap,
             const std::optional<StructureArrays>& structure, nb::object score_mod) {
            led_by(function, [&] {
              const AttentionOptions options{.scale = scale,
                                             .softcap = softcap,
                                             .empty_rows = empty_rows(empty_rows_word),
                                             .weights = weights_mode(weights),
                                             .dropout_p = dropout_p,
                                             .seed = seed};
              new (self)
                  Options(function, attn_mask, options,
                          Structure(is_causal, causal_align, window_of(window), query_offset),
                          structure, std::move(score_mod));
            });
          },
          nb::arg("function"), nb::arg("attn_mask").none(), nb::arg("dropout_p"), nb::arg("seed"),
          nb::arg("is_causal"), nb::arg("scale").none(), nb::arg("causal_align"),
          nb::arg("weights").none(), nb::arg("empty_rows"), nb::arg("window").none() = nb::none(),
          nb::arg("query_offset").none() = nb::none(), nb::arg("softcap") = 0.0,
          nb::arg("structure").none() = nb::none(), nb::arg("score_mod").none() = nb::none());
}

}  // namespace polyhead::python
