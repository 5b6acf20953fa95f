#include "words.h"

#include <polyhead/error.h>

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace polyhead::python {
namespace {

template <class T>
T meaning(const char* argument, std::string_view word,
          std::initializer_list<std::pair<const char*, T>> words) {
  std::string known;
  for (const auto& [name, value] : words) {
    if (word == name) return value;
    known += (known.empty() ? "'" : " or '") + std::string(name) + "'";
  }
  throw InvalidArgument(std::string(argument) + ": got '" + std::string(word) + "'; need " + known);
}

}  // namespace

CausalAlign causal_align(const char* word) {
  return meaning<CausalAlign>(
      "causal_align", word,
      {{"top_left", CausalAlign::kTopLeft}, {"bottom_right", CausalAlign::kBottomRight}});
}

EmptyRow empty_rows(const char* word) {
  return meaning<EmptyRow>("empty_rows", word,
                           {{"zero", EmptyRow::kZero}, {"nan", EmptyRow::kNan}});
}

WeightsMode weights_mode(std::optional<const char*> word) {
  if (!word) return WeightsMode::kNone;
  return meaning<WeightsMode>(
      "weights", *word, {{"average", WeightsMode::kAverage}, {"per_head", WeightsMode::kPerHead}});
}

HeadWidth head_width(const char* word) {
  return meaning<HeadWidth>("head_width", word,
                            {{"split", HeadWidth::kSplit}, {"full", HeadWidth::kFull}});
}

DType float_dtype(const char* word) {
  return meaning<DType>("dtype", word,
                        {{"float32", DType::kFloat32}, {"float64", DType::kFloat64}});
}

int64_t given(std::optional<int64_t> size, const char* argument) {
  if (size.value_or(1) < 1) {
    throw InvalidArgument(std::string(argument) + ": got " + std::to_string(*size) +
                          "; need at least 1, or None");
  }
  return size.value_or(0);
}

const char* head_width_word(HeadWidth width) {
  return width == HeadWidth::kSplit ? "split" : "full";
}

}  // namespace polyhead::python
