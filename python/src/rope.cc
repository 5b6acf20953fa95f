#include "rope.h"

#include <nanobind/stl/string.h>
#include <polyhead/error.h>

#include <string>
#include <type_traits>

namespace polyhead::python {

namespace nb = nanobind;

namespace {

constexpr const char* kPairs[] = {nullptr, "halves", "interleaved"};  // none: no rope
constexpr const char* kScalings[] = {"none", "linear", "ntk", "llama3"};

template <class Enum, size_t n>
Enum word_of(const std::string& name, nb::handle given, const char* const (&words)[n]) {
  const std::string word = nb::str(given).c_str();
  std::string known;
  for (size_t i = 0; i < n; ++i) {
    if (words[i] == nullptr) continue;
    if (word == words[i]) return static_cast<Enum>(i);
    known += (known.empty() ? "'" : " or '") + std::string(words[i]) + "'";
  }
  throw InvalidArgument("rope: " + name + ": got '" + word + "'; need " + known);
}

template <class Number>
Number number_of(const std::string& name, nb::handle given) {
  Number number{};
  if (nb::try_cast(given, number)) return number;
  const std::string got = nb::repr(given).c_str();
  const char* const need = std::is_integral_v<Number> ? "; need an int" : "; need a number";
  throw nb::type_error(("rope: " + name + ": got " + got + need).c_str());
}

void set_field(Rope* rope, const std::string& name, nb::handle given) {
  if (name == "pairs") {
    rope->pairs = word_of<RopePairs>(name, given, kPairs);
  } else if (name == "base") {
    rope->base = number_of<double>(name, given);
  } else if (name == "rotary_dim") {
    rope->rotary_dim = number_of<int64_t>(name, given);
  } else if (name == "scaling") {
    rope->scaling = word_of<RopeScaling>(name, given, kScalings);
  } else if (name == "factor") {
    rope->factor = number_of<double>(name, given);
  } else if (name == "low_freq_factor") {
    rope->low_freq_factor = number_of<double>(name, given);
  } else if (name == "high_freq_factor") {
    rope->high_freq_factor = number_of<double>(name, given);
  } else if (name == "original_length") {
    rope->original_length = number_of<int64_t>(name, given);
  } else {
    throw InvalidArgument("rope: got '" + name +
                          "'; need pairs, base, rotary_dim, scaling, factor, low_freq_factor, "
                          "high_freq_factor or original_length");
  }
}

}  // namespace

Rope rope_of(nb::handle given) {
  Rope rope;
  if (given.is_none()) return rope;
  if (!nb::isinstance<nb::dict>(given)) {
    const std::string type = nb::type_name(given.type()).c_str();
    throw nb::type_error(("rope: got " + type + "; need a dict").c_str());
  }
  if (!nb::cast<nb::dict>(given).contains("pairs")) {
    throw InvalidArgument("rope: pairs: not said; need 'halves' or 'interleaved'");
  }
  for (const auto& [name, value] : nb::cast<nb::dict>(given)) {
    std::string text;
    if (!nb::try_cast(name, text)) throw nb::type_error("rope: names must be strings");
    set_field(&rope, text, value);
  }
  return rope;
}

nb::object rope_dict(const Rope& rope) {
  if (rope.pairs == RopePairs::kNone) return nb::none();
  nb::dict dict;
  dict["pairs"] = kPairs[static_cast<size_t>(rope.pairs)];
  dict["base"] = rope.base;
  dict["rotary_dim"] = rope.rotary_dim;
  dict["scaling"] = kScalings[static_cast<size_t>(rope.scaling)];
  dict["factor"] = rope.factor;
  dict["low_freq_factor"] = rope.low_freq_factor;
  dict["high_freq_factor"] = rope.high_freq_factor;
  dict["original_length"] = rope.original_length;
  return dict;
}

}  // namespace polyhead::python
