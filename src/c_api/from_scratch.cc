#include <polyhead/multihead_attention.h>

#include "c_api/module_handle.h"

namespace c_api = polyhead::c_api;

extern "C" {

polyhead_status polyhead_scratch_load(const char* path, const polyhead_load_options* options,
                                      polyhead_scratch** out) {
  const char* function = __func__;
  return c_api::guarded(function, [&] {
    c_api::require_not_null(path, {function, "path"});
    c_api::require_not_null(out, {function, "out"});
    c_api::create<polyhead_scratch>(
        polyhead::FromScratchMultiHeadAttention::load(path, c_api::load_options(options, function)),
        nullptr, 0, out, function);
  });
}

polyhead_status polyhead_scratch_create(const polyhead_scratch_config* config,
                                        const polyhead_parameter* parameters, size_t num_parameters,
                                        polyhead_scratch** out) {
  const char* function = __func__;
  return c_api::guarded(function, [&] {
    c_api::require_not_null(config, {function, "config"});
    c_api::require_not_null(out, {function, "out"});
    const auto given = c_api::read_options(config, {function, "config"});
    const auto width = c_api::enum_of(given.head_width, polyhead::HeadWidth::kFull,
                                      {function, "config.head_width"});
    const auto dtype =
        c_api::enum_of(given.dtype, polyhead::DType::kInt64, {function, "config.dtype"});
    c_api::create<polyhead_scratch>(
        polyhead::FromScratchMultiHeadAttention(given.embed_size, given.num_heads, width,
                                                given.seed, dtype),
        parameters, num_parameters, out, function);
  });
}

void polyhead_scratch_destroy(polyhead_scratch* scratch) { delete scratch; }

// over-budget: seven parameters, as those of polyhead_mha_forward.
polyhead_status polyhead_scratch_forward(const polyhead_scratch* scratch,
                                         const polyhead_scratch_forward_options* options,
                                         const polyhead_tensor* query, const polyhead_tensor* key,
                                         const polyhead_tensor* value, const polyhead_tensor* out,
                                         const polyhead_tensor* weights) {
  const char* function = __func__;
  return c_api::guarded(function, [&] {
    c_api::require_not_null(scratch, {function, "scratch"});
    const auto query_view = c_api::required_view(query, {function, "query"});
    const auto key_view = c_api::required_view(key, {function, "key"});
    const auto value_view = c_api::required_view(value, {function, "value"});
    const auto out_view = c_api::required_view(out, {function, "out"});
    const auto weights_view = c_api::optional_view(weights, {function, "weights"});
    const auto given = c_api::read_options(options, {function, "options"});
    const auto mask = c_api::optional_view(given.mask, {function, "options.mask"});
    scratch->module.forward_into(query_view, key_view, value_view, mask, out_view, weights_view);
  });
}

polyhead_status polyhead_scratch_save(const polyhead_scratch* scratch, const char* path,
                                      const char* prefix) {
  return c_api::save(scratch, path, prefix, __func__);
}

polyhead_status polyhead_scratch_get_config(const polyhead_scratch* scratch,
                                            polyhead_scratch_config* config) {
  const char* function = __func__;
  return c_api::guarded(function, [&] {
    c_api::require_not_null(scratch, {function, "scratch"});
    const auto& module = scratch->module;
    const polyhead_scratch_config values = {.struct_size = sizeof values,
                                            .embed_size = module.embed_size(),
                                            .num_heads = module.num_heads(),
                                            .seed = 0,
                                            .head_width = static_cast<int32_t>(module.head_width()),
                                            .dtype = static_cast<int32_t>(module.dtype())};
    c_api::write_options(config, values, {function, "config"});
  });
}

polyhead_status polyhead_scratch_num_parameters(const polyhead_scratch* scratch, size_t* out) {
  return c_api::num_parameters(scratch, out, __func__);
}

polyhead_status polyhead_scratch_parameter_at(const polyhead_scratch* scratch, size_t index,
                                              polyhead_parameter* out) {
  return c_api::parameter_at(scratch, index, out, __func__);
}

polyhead_status polyhead_scratch_get_parameter(const polyhead_scratch* scratch, const char* name,
                                               polyhead_tensor* out) {
  return c_api::get_parameter(scratch, name, out, __func__);
}

polyhead_status polyhead_scratch_set_parameter(polyhead_scratch* scratch, const char* name,
                                               const polyhead_tensor* value) {
  return c_api::set_parameter(scratch, name, value, __func__);
}

}  // extern "C"
