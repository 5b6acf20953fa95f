// The words that Python says for the enumerations of C++.
#pragma once

#include <polyhead/multihead_attention.h>

#include <optional>

namespace polyhead::python {

// Each throws InvalidArgument for another word, and lists those it knows.
CausalAlign causal_align(const char* word);                 // "top_left", "bottom_right"
EmptyRow empty_rows(const char* word);                      // "zero", "nan"
WeightsMode weights_mode(std::optional<const char*> word);  // none, "average", "per_head"
HeadWidth head_width(const char* word);                     // "split", "full"
DType float_dtype(const char* word);                        // "float32", "float64"
// 0 stands for "not given" in the library; here None does, and below 1 is a mistake:
// InvalidArgument.
int64_t given(std::optional<int64_t> size, const char* argument);
const char* head_width_word(HeadWidth width);

}  // namespace polyhead::python
