#include <polyhead/training.h>

#include "c_api/module_handle.h"

namespace c_api = polyhead::c_api;

struct polyhead_training_context {
  polyhead::TrainingContext context;
};

namespace polyhead::c_api {
namespace {

static_assert(sizeof(polyhead_gradients) == 80 + 2 * sizeof(int32_t));

// The gradients of a module, undefined but for those the caller names.
ParameterViews parameter_targets(
    const std::vector<std::pair<std::string, ConstTensorView>>& state_dict,
    const polyhead_gradients& given, const char* function) {
  ParameterViews targets;
  if (given.num_parameters == 0) return targets;
  if (given.num_parameters > kMaxParameters) {
    fail({function, "gradients.num_parameters"}, message("is ", given.num_parameters),
         message("at most ", kMaxParameters));
  }
  require_not_null(given.parameters, {function, "gradients.parameters"});
  for (const auto& [name, view] : state_dict) targets.emplace_back(name, TensorView());
  for (size_t i = 0; i < given.num_parameters; ++i) {
    require_not_null(given.parameters[i].name, {function, "gradients.parameters[].name"});
    const std::string name = given.parameters[i].name;
    const auto found = std::find_if(targets.begin(), targets.end(), [&](const auto& target) {
      return target.first == name && !target.second.defined();
    });
    if (found == targets.end()) {
      fail({function, "gradients.parameters"}, "\"" + name + "\" is unknown or given twice",
           "of the state dict");
    }
    found->second = required_view(&given.parameters[i].tensor, {function, name.c_str()});
  }
  return targets;
}

template <class Handle>
polyhead_status backward(const Handle* handle, const polyhead_training_context* context,
                         const polyhead_gradients* gradients, const char* function) {
  return guarded(function, [&] {
    require_not_null(handle, {function, "module"});
    require_not_null(context, {function, "context"});
    require_not_null(gradients, {function, "gradients"});
    const auto given = read_options(gradients, {function, "gradients"});
    require_zero(given.reserved, {function, "gradients.reserved"});
    const bool accumulate = flag(given.accumulate, {function, "gradients.accumulate"});
    const auto optional = [&](const polyhead_tensor* tensor, const char* name) {
      return optional_view(tensor, {function, name});
    };
    const OutputGradients outputs = {
        .d_out = required_view(given.d_out, {function, "gradients.d_out"}),
        .d_weights = optional(given.d_weights, "gradients.d_weights")};
    const InputGradients inputs = {
        .d_query = optional(given.d_query, "gradients.d_query"),
        .d_key = optional(given.d_key, "gradients.d_key"),
        .d_value = optional(given.d_value, "gradients.d_value"),
        .d_attn_mask = optional(given.d_attn_mask, "gradients.d_attn_mask"),
        .d_key_padding_mask = optional(given.d_key_padding_mask, "gradients.d_key_padding_mask")};
    handle->module.backward(context->context, outputs, inputs,
                            parameter_targets(handle->parameters, given, function),
                            accumulate ? GradientMode::kAccumulate : GradientMode::kOverwrite);
  });
}

template <class Handle>
polyhead_status repack(Handle* handle, const char* function) {
  return guarded(function, [&] {
    require_not_null(handle, {function, "module"});
    handle->module.repack();
  });
}

}  // namespace
}  // namespace polyhead::c_api

extern "C" {

polyhead_status polyhead_training_context_create(polyhead_training_context** out) {
  const char* function = __func__;
  return c_api::guarded(function, [&] {
    c_api::require_not_null(out, {function, "out"});
    *out = std::make_unique<polyhead_training_context>().release();
  });
}

void polyhead_training_context_destroy(polyhead_training_context* context) { delete context; }

polyhead_status polyhead_training_context_set_dropout(polyhead_training_context* context,
                                                      uint64_t seed, uint32_t call,
                                                      const double* p) {
  const char* function = __func__;
  return c_api::guarded(function, [&] {
    c_api::require_not_null(context, {function, "context"});
    context->context.dropout = {.seed = seed, .call = call};
    if (p != nullptr) context->context.dropout.p = *p;
  });
}

polyhead_status polyhead_training_context_get_dropout(const polyhead_training_context* context,
                                                      uint64_t* seed, uint32_t* call) {
  const char* function = __func__;
  return c_api::guarded(function, [&] {
    c_api::require_not_null(context, {function, "context"});
    c_api::require_not_null(seed, {function, "seed"});
    c_api::require_not_null(call, {function, "call"});
    *seed = context->context.dropout.seed;
    *call = context->context.dropout.call;
  });
}

// over-budget: eight parameters, as the forward's and the context.
polyhead_status polyhead_mha_forward_training(
    const polyhead_mha* mha, const polyhead_forward_options* options, const polyhead_tensor* query,
    const polyhead_tensor* key, const polyhead_tensor* value, const polyhead_tensor* out,
    const polyhead_tensor* weights, polyhead_training_context* context) {
  const char* function = __func__;
  return c_api::guarded(function, [&] {
    c_api::require_not_null(mha, {function, "mha"});
    c_api::require_not_null(context, {function, "context"});
    const auto query_view = c_api::required_view(query, {function, "query"});
    const auto key_view = c_api::required_view(key, {function, "key"});
    const auto value_view = c_api::required_view(value, {function, "value"});
    const polyhead::ForwardOutputs outputs = {
        .out = c_api::required_view(out, {function, "out"}),
        .weights = c_api::optional_view(weights, {function, "weights"})};
    mha->module.forward_into(query_view, key_view, value_view,
                             c_api::forward_options(options, function), outputs, &context->context);
  });
}

// over-budget: eight parameters, as the forward's and the context.
polyhead_status polyhead_scratch_forward_training(
    const polyhead_scratch* scratch, const polyhead_scratch_forward_options* options,
    const polyhead_tensor* query, const polyhead_tensor* key, const polyhead_tensor* value,
    const polyhead_tensor* out, const polyhead_tensor* weights,
    polyhead_training_context* context) {
  const char* function = __func__;
  return c_api::guarded(function, [&] {
    c_api::require_not_null(scratch, {function, "scratch"});
    c_api::require_not_null(context, {function, "context"});
    const auto query_view = c_api::required_view(query, {function, "query"});
    const auto key_view = c_api::required_view(key, {function, "key"});
    const auto value_view = c_api::required_view(value, {function, "value"});
    const polyhead::ForwardOutputs outputs = {
        .out = c_api::required_view(out, {function, "out"}),
        .weights = c_api::optional_view(weights, {function, "weights"})};
    const auto given = c_api::read_options(options, {function, "options"});
    const auto mask = c_api::optional_view(given.mask, {function, "options.mask"});
    scratch->module.forward_into(query_view, key_view, value_view, mask, outputs,
                                 &context->context);
  });
}

polyhead_status polyhead_mha_backward(const polyhead_mha* mha,
                                      const polyhead_training_context* context,
                                      const polyhead_gradients* gradients) {
  return c_api::backward(mha, context, gradients, __func__);
}

polyhead_status polyhead_scratch_backward(const polyhead_scratch* scratch,
                                          const polyhead_training_context* context,
                                          const polyhead_gradients* gradients) {
  return c_api::backward(scratch, context, gradients, __func__);
}

polyhead_status polyhead_mha_repack(polyhead_mha* mha) { return c_api::repack(mha, __func__); }

polyhead_status polyhead_scratch_repack(polyhead_scratch* scratch) {
  return c_api::repack(scratch, __func__);
}

}  // extern "C"
