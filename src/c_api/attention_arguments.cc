#include "c_api/attention_arguments.h"

#include <string>

#include <polyhead/error.h>
#include "base/message.h"
#include "c_api/score_mod.h"

namespace polyhead::c_api {
namespace {

constexpr size_t kMaxMasks = 64;

// What body() gives, whose refusals call element i "[]".
template <class Body>
auto of_element(size_t i, const Body& body) {
  try {
    return body();
  } catch (const InvalidArgument& error) {
    std::string text = error.what();
    const size_t at = text.find("[]");
    if (at == std::string::npos) throw;
    throw InvalidArgument(text.insert(at + 1, std::to_string(i)));
  }
}

}  // namespace

AttentionOptions AttentionArguments::options(const polyhead_attention_options* given) {
  const auto options = read_options(given, place("options"));
  AttentionOptions result;
  if (options.scale != nullptr) result.scale = *options.scale;
  result.masks = masks(options.masks, options.num_masks);
  result.empty_rows = enum_of(options.empty_rows, EmptyRow::kNan, place("options.empty_rows"));
  result.weights = enum_of(options.weights, WeightsMode::kPerHead, place("options.weights"));
  result.plan = options.plan;
  require_zero(options.reserved, place("options.reserved"));
  result.dropout_p = options.dropout_p;
  result.seed = options.seed;
  result.dropout_call = options.dropout_call;
  result.softcap = options.softcap;
  result.sinks = optional(options.sinks, "options.sinks");
  result.cu_seqlens_q = optional(options.cu_seqlens_q, "options.cu_seqlens_q");
  result.cu_seqlens_k = optional(options.cu_seqlens_k, "options.cu_seqlens_k");
  if (options.score_mod != nullptr) {
    score_mod_ = required_struct(options.score_mod, "options.score_mod");
    require_not_null(score_mod_.forward, place("options.score_mod.forward"));
    result.score_mod = score_mod_of(&score_mod_);
  }
  return result;
}

AttentionOutputs AttentionArguments::outputs(const polyhead_attention_outputs* given) const {
  const auto outputs = required_struct(given, "outputs");
  return {.out = required(outputs.out, "outputs.out"),
          .lse = optional(outputs.lse, "outputs.lse"),
          .weights = optional(outputs.weights, "outputs.weights"),
          .lse_rest = optional(outputs.lse_rest, "outputs.lse_rest")};
}

std::vector<TensorView> AttentionArguments::mask_gradients(const polyhead_tensor* const* tensors,
                                                           size_t num_masks) const {
  std::vector<TensorView> result;
  if (tensors == nullptr) return result;
  result.reserve(num_masks);
  for (size_t i = 0; i < num_masks; ++i) {
    result.push_back(
        of_element(i, [&] { return optional_view(tensors[i], place("gradients.d_masks[]")); }));
  }
  return result;
}

QueryOffset AttentionArguments::offset(const polyhead_mask& mask) const {
  const auto align =
      enum_of(mask.causal_align, CausalAlign::kBottomRight, place("masks[].causal_align"));
  if (mask.query_offset == 0) return align;
  if (align == CausalAlign::kTopLeft) return mask.query_offset;
  fail(place("masks[].query_offset"), message("is ", mask.query_offset),
       "0 under POLYHEAD_BOTTOM_RIGHT");
}

Mask AttentionArguments::mask(const polyhead_mask* given) const {
  const auto mask = read_options(given, place("masks[]"));
  require_zero(mask.reserved, place("masks[].reserved"));
  const auto tensor = [&] { return required_view(mask.tensor, place("masks[].tensor")); };
  switch (enum_of(mask.kind, Mask::Kind::kSegments, place("masks[].kind"))) {
    case Mask::Kind::kCausal:
      return Mask::causal(offset(mask));
    case Mask::Kind::kWindow:
      return Mask::window(mask.left, mask.right, offset(mask));
    case Mask::Kind::kKeyLengths:
      return Mask::key_lengths(tensor());
    case Mask::Kind::kAlibi:
      return Mask::alibi(tensor(), offset(mask));
    case Mask::Kind::kSegments:
      return Mask::segments(tensor(), required_view(mask.key_ids, place("masks[].key_ids")));
    case Mask::Kind::kAdditive:
      return Mask::additive(tensor(), mask.factor == 0 ? 1 : mask.factor);
    case Mask::Kind::kBoolean:
      break;
  }
  const auto sense = enum_of(mask.sense, MaskSense::kIncluded, place("masks[].sense"));
  return Mask::boolean(tensor(), sense);
}

// The caller's array, in the caller's steps: its masks may be smaller or larger than ours.
std::vector<Mask> AttentionArguments::masks(const polyhead_mask* masks, size_t count) const {
  std::vector<Mask> result;
  if (count > kMaxMasks) {
    fail(place("num_masks"), message("is ", count), message("at most ", kMaxMasks));
  }
  if (count == 0) return result;
  require_not_null(masks, place("masks"));
  result.reserve(count);
  const size_t step = masks->struct_size;
  const auto* at = reinterpret_cast<const std::byte*>(masks);
  for (size_t i = 0; i < count; ++i, at += step) {
    const auto* one = reinterpret_cast<const polyhead_mask*>(at);
    if (one->struct_size != step) {
      fail(place("masks"), message("struct_size is ", one->struct_size, " in masks[", i, "]"),
           message("that of masks[0], ", step));
    }
    result.push_back(of_element(i, [&] { return mask(one); }));
  }
  return result;
}

}  // namespace polyhead::c_api
