#include <polyhead/attention.h>

#include "c_api/attention_arguments.h"
#include "c_api/guard.h"

extern "C" polyhead_status polyhead_attention_forward(const polyhead_attention_options* options,
                                                      const polyhead_tensor* query,
                                                      const polyhead_tensor* key,
                                                      const polyhead_tensor* value,
                                                      const polyhead_attention_outputs* outputs) {
  using namespace polyhead::c_api;
  static constexpr const char* kFunction = "polyhead_attention_forward";
  return guarded(kFunction, [&] {
    AttentionArguments arguments(kFunction);
    const auto query_view = arguments.required(query, "query");
    const auto key_view = arguments.required(key, "key");
    const auto value_view = arguments.required(value, "value");
    const auto wanted = arguments.outputs(outputs);
    polyhead::attention_forward(query_view, key_view, value_view, arguments.options(options),
                                wanted);
  });
}

extern "C" polyhead_status polyhead_attention_backward(
    const polyhead_attention_options* options, const polyhead_tensor* query,
    const polyhead_tensor* key, const polyhead_tensor* value,
    const polyhead_attention_backward_inputs* inputs,
    const polyhead_attention_gradients* gradients) {
  using namespace polyhead::c_api;
  static constexpr const char* kFunction = "polyhead_attention_backward";
  return guarded(kFunction, [&] {
    AttentionArguments arguments(kFunction);
    const auto query_view = arguments.required(query, "query");
    const auto key_view = arguments.required(key, "key");
    const auto value_view = arguments.required(value, "value");
    const auto given = arguments.required_struct(inputs, "inputs");
    const auto wanted = arguments.required_struct(gradients, "gradients");
    const auto read = arguments.options(options);
    polyhead::attention_backward(
        query_view, key_view, value_view, read,
        {.out = arguments.required(given.out, "inputs.out"),
         .lse = arguments.required(given.lse, "inputs.lse"),
         .d_out = arguments.required(given.d_out, "inputs.d_out"),
         .d_weights = arguments.optional(given.d_weights, "inputs.d_weights"),
         .lse_rest = arguments.optional(given.lse_rest, "inputs.lse_rest")},
        {.d_query = arguments.optional(wanted.d_query, "gradients.d_query"),
         .d_key = arguments.optional(wanted.d_key, "gradients.d_key"),
         .d_value = arguments.optional(wanted.d_value, "gradients.d_value"),
         .d_masks = arguments.mask_gradients(wanted.d_masks, read.masks.size()),
         .d_sinks = arguments.optional(wanted.d_sinks, "gradients.d_sinks")});
  });
}

extern "C" polyhead_status polyhead_attention_dropout_mask(
    const polyhead_attention_options* options, const polyhead_tensor* keep) {
  using namespace polyhead::c_api;
  static constexpr const char* kFunction = "polyhead_attention_dropout_mask";
  return guarded(kFunction, [&] {
    AttentionArguments arguments(kFunction);
    polyhead::attention_dropout_mask(arguments.options(options), arguments.required(keep, "keep"));
  });
}
