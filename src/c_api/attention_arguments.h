// What the functions of the attention op are called with, in C.
#pragma once

#include <vector>

#include <polyhead/attention.h>
#include "c_api/convert.h"

namespace polyhead::c_api {

// On behalf of the function that is named.
class AttentionArguments {
 public:
  explicit AttentionArguments(const char* function) : function_(function) {}
  AttentionArguments(const AttentionArguments&) = delete;
  AttentionArguments& operator=(const AttentionArguments&) = delete;

  // Valid while these arguments are.
  AttentionOptions options(const polyhead_attention_options* given);
  AttentionOutputs outputs(const polyhead_attention_outputs* given) const;
  // One for each mask, or none.
  std::vector<TensorView> mask_gradients(const polyhead_tensor* const* tensors,
                                         size_t num_masks) const;

  TensorView required(const polyhead_tensor* tensor, const char* argument) const {
    return required_view(tensor, place(argument));
  }
  TensorView optional(const polyhead_tensor* tensor, const char* argument) const {
    return optional_view(tensor, place(argument));
  }
  template <class Options>
  Options required_struct(const Options* given, const char* argument) const {
    require_not_null(given, place(argument));
    return read_options(given, place(argument));
  }

 private:
  Place place(const char* argument) const { return {function_, argument}; }
  QueryOffset offset(const polyhead_mask& mask) const;
  Mask mask(const polyhead_mask* given) const;
  std::vector<Mask> masks(const polyhead_mask* masks, size_t count) const;

  const char* function_;
  polyhead_score_mod score_mod_{};
};

}  // namespace polyhead::c_api
