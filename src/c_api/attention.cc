#include <polyhead/attention.h>

#include "base/message.h"
#include "c_api/convert.h"
#include "c_api/guard.h"

namespace polyhead::c_api {
namespace {

constexpr const char* kFunction = "polyhead_attention_forward";
constexpr size_t kMaxMasks = 64;

Mask mask_of(const polyhead_mask* given) {
  const auto mask = read_options(given, {kFunction, "masks"});
  require_zero(mask.reserved, {kFunction, "masks[].reserved"});
  const auto kind = enum_of(mask.kind, Mask::Kind::kCausal, {kFunction, "masks[].kind"});
  if (kind == Mask::Kind::kCausal) {
    return Mask::causal(
        enum_of(mask.causal_align, CausalAlign::kBottomRight, {kFunction, "masks[].causal_align"}));
  }
  const ConstTensorView tensor = required_view(mask.tensor, {kFunction, "masks[].tensor"});
  if (kind == Mask::Kind::kAdditive) {
    return Mask::additive(tensor, mask.factor == 0 ? 1 : mask.factor);
  }
  return Mask::boolean(tensor,
                       enum_of(mask.sense, MaskSense::kIncluded, {kFunction, "masks[].sense"}));
}

// The caller's array, in the caller's steps: its masks may be smaller or larger than ours.
std::vector<Mask> masks_of(const polyhead_mask* masks, size_t count) {
  std::vector<Mask> result;
  if (count > kMaxMasks) {
    fail({kFunction, "num_masks"}, message("is ", count), message("at most ", kMaxMasks));
  }
  if (count == 0) return result;
  require_not_null(masks, {kFunction, "masks"});
  result.reserve(count);
  const size_t step = masks->struct_size;
  const auto* at = reinterpret_cast<const std::byte*>(masks);
  for (size_t i = 0; i < count; ++i, at += step) {
    const auto* mask = reinterpret_cast<const polyhead_mask*>(at);
    if (mask->struct_size != step) {
      fail({kFunction, "masks"},
           message("struct_size is ", mask->struct_size, " in masks[", i, "]"),
           message("that of masks[0], ", step));
    }
    result.push_back(mask_of(mask));
  }
  return result;
}

AttentionOptions options_of(const polyhead_attention_options* given) {
  const auto options = read_options(given, {kFunction, "options"});
  AttentionOptions result;
  if (options.scale != nullptr) result.scale = *options.scale;
  result.masks = masks_of(options.masks, options.num_masks);
  result.empty_rows =
      enum_of(options.empty_rows, EmptyRow::kNan, {kFunction, "options.empty_rows"});
  result.weights = enum_of(options.weights, WeightsMode::kPerHead, {kFunction, "options.weights"});
  result.plan = options.plan;
  return result;
}

}  // namespace
}  // namespace polyhead::c_api

extern "C" polyhead_status polyhead_attention_forward(const polyhead_attention_options* options,
                                                      const polyhead_tensor* query,
                                                      const polyhead_tensor* key,
                                                      const polyhead_tensor* value,
                                                      const polyhead_attention_outputs* outputs) {
  using namespace polyhead::c_api;
  return guarded(kFunction, [&] {
    const auto query_view = required_view(query, {kFunction, "query"});
    const auto key_view = required_view(key, {kFunction, "key"});
    const auto value_view = required_view(value, {kFunction, "value"});
    require_not_null(outputs, {kFunction, "outputs"});
    const auto wanted = read_options(outputs, {kFunction, "outputs"});
    polyhead::attention_forward(
        query_view, key_view, value_view, options_of(options),
        {.out = required_view(wanted.out, {kFunction, "outputs.out"}),
         .lse = optional_view(wanted.lse, {kFunction, "outputs.lse"}),
         .weights = optional_view(wanted.weights, {kFunction, "outputs.weights"})});
  });
}
