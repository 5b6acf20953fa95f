// A case in words, so that a failure says all that it takes to repeat it.
#include <cstddef>
#include <ostream>
#include <string>
#include <vector>

#include "base/message.h"
#include "testing/attention_case.h"

namespace polyhead::oracle {
namespace {

template <class Enum, size_t kCount>
const char* name_in(const char* const (&names)[kCount], Enum value) {
  return names[static_cast<size_t>(value)];
}

std::string text_of(const QueryOffset& offset) {
  if (offset.of(0, 1) == 1 && offset.of(1, 1) == 0) return "bottom right";
  return std::to_string(offset.number());
}

std::string text_of(const std::vector<int64_t>& numbers) {
  std::string text = "{";
  for (int64_t n : numbers) text += (text.size() > 1 ? ", " : "") + std::to_string(n);
  return text + "}";
}

std::string text_of(const MaskSpec& mask) {
  static constexpr const char* kKinds[] = {"boolean",     "additive", "causal",  "window",
                                           "key lengths", "alibi",    "segments"};
  static constexpr const char* kPatterns[] = {"random", "padding", "empty rows", "one key"};
  return message("mask ", name_in(kKinds, mask.kind), " ", mask.dims, " ",
                 name_in(kPatterns, mask.pattern), " ", mask.density,
                 mask.sense == MaskSense::kExcluded ? " excluded" : " included", ", offset ",
                 text_of(mask.align), ", window ", mask.left, " ", mask.right, ", ",
                 dtype_name(mask.dtype), " times ", mask.factor);
}

std::string text_of_shape(const AttentionCase& spec) {
  const std::string shape = message(dtype_name(spec.dtype), " B", spec.batch, " H", spec.heads, "/",
                                    spec.kv_heads, " L", spec.q_len, " S", spec.kv_len, " D",
                                    spec.head_dim, " Dv", spec.v_head_dim, " X", spec.extra);
  if (!spec.packed()) return shape;
  return message(shape, ", packed ", dtype_name(spec.lengths.dtype), " ",
                 text_of(spec.lengths.queries), " ", text_of(spec.lengths.keys));
}

}  // namespace

const char* regime_name(Regime regime) {
  static constexpr const char* kNames[] = {"near-uniform", "sigma 1",  "peaked",     "all equal",
                                           "huge",         "denormal", "descending", "ascending"};
  return name_in(kNames, regime);
}

std::string AttentionCase::describe() const {
  static constexpr const char* kLayouts[] = {"contiguous", "heads inner", "gaps", "reversed",
                                             "columns"};
  static constexpr const char* kWeights[] = {"no", "averaged", "per head"};
  std::string text = message(text_of_shape(*this), ", ", regime_name(regime), ", ",
                             name_in(kLayouts, storage), ", ", name_in(kWeights, weights),
                             " weights, empty rows ", empty_rows == EmptyRow::kNan ? "NaN" : "0");
  if (scale) text += message(", scale ", *scale);
  if (dropout_p > 0) text += message(", dropout ", dropout_p);
  if (softcap > 0) text += message(", softcap ", softcap);
  if (score_mod.forward != nullptr) text += message(", score_mod ", score_mod_name);
  if (sinks) text += ", sinks";
  if (!with_rest) text += ", without lse_rest";
  if (threads > 0) text += message(", threads ", threads);
  for (const MaskSpec& mask : masks) text += message(", ", text_of(mask));
  return message(text, ", seed ", seed);
}

void PrintTo(const AttentionCase& spec, std::ostream* stream) { *stream << spec.describe(); }
void PrintTo(Regime regime, std::ostream* stream) { *stream << regime_name(regime); }

}  // namespace polyhead::oracle
