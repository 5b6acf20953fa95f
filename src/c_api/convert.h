// What callers in C pass, checked and turned into what the C++ API takes. Failures throw
// InvalidArgument or Unsupported: `function: argument: what we got; what we need`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include <polyhead/c_api.h>
#include <polyhead/multihead_attention.h>
#include <polyhead/tensor_view.h>

namespace polyhead::c_api {

// Names the function and the argument that a message is about.
struct Place {
  const char* function;
  const char* argument;
};

[[noreturn]] void fail(const Place& place, const std::string& got, const std::string& need);

template <class T>
void require_not_null(T* pointer, const Place& place) {
  if (pointer == nullptr) fail(place, "is null", "given");
}

// Null gives an undefined view: not given.
TensorView optional_view(const polyhead_tensor* tensor, const Place& place);
TensorView required_view(const polyhead_tensor* tensor, const Place& place);
polyhead_tensor tensor_of(const ConstTensorView& view);  // points into `view`

bool flag(int32_t value, const Place& place);
int32_t checked_enum(int32_t value, int32_t count, const Place& place);
template <class Enum>
Enum enum_of(int32_t value, Enum last, const Place& place) {
  return static_cast<Enum>(checked_enum(value, static_cast<int32_t>(last) + 1, place));
}
void require_zero(int32_t reserved, const Place& place);

// Reads struct_size bytes of `from` into `to`, which has `known` bytes, zero. The rule is in the
// public header.
void copy_options(void* to, size_t known, const void* from, const Place& place);
// The other way: writes what the caller has room for, and zero in what we do not know.
void fill_options(void* to, size_t known, const void* from, const Place& place);

// Null gives all defaults.
template <class Options>
Options read_options(const Options* options, const Place& place) {
  Options result{};
  result.struct_size = sizeof(Options);
  if (options != nullptr) copy_options(&result, sizeof(Options), options, place);
  return result;
}

template <class Options>
void write_options(Options* options, const Options& values, const Place& place) {
  require_not_null(options, place);
  fill_options(options, sizeof(Options), &values, place);
}

// Of a struct with the fields rope_...; where a number is 0, the default.
template <class Given>
Rope rope_of(const Given& given, const Place& pairs, const Place& scaling) {
  Rope rope;
  const auto set = [](auto from, auto* to) {
    if (from != 0) *to = from;
  };
  rope.pairs = enum_of(given.rope_pairs, RopePairs::kInterleaved, pairs);
  rope.scaling = enum_of(given.rope_scaling, RopeScaling::kLlama3, scaling);
  set(given.rope_base, &rope.base);
  set(given.rope_factor, &rope.factor);
  set(given.rope_low_freq_factor, &rope.low_freq_factor);
  set(given.rope_high_freq_factor, &rope.high_freq_factor);
  set(given.rope_rotary_dim, &rope.rotary_dim);
  set(given.rope_original_length, &rope.original_length);
  return rope;
}

LoadOptions load_options(const polyhead_load_options* options, const char* function);
ForwardOptions forward_options(const polyhead_forward_options* given, const char* function);

}  // namespace polyhead::c_api
