#include <polyhead/multihead_attention.h>

#include "c_api/kv_cache_handle.h"
#include "c_api/module_handle.h"

namespace c_api = polyhead::c_api;

namespace polyhead::c_api {
namespace {

MultiheadAttention::Config config_of(const polyhead_mha_config& given, const char* function) {
  require_zero(given.reserved, {function, "config.reserved"});
  MultiheadAttention::Config config;
  config.embed_dim = given.embed_dim;
  config.num_heads = given.num_heads;
  config.layout = enum_of(given.layout, Layout::kSequenceFirst, {function, "config.layout"});
  config.bias = !flag(given.no_bias, {function, "config.no_bias"});
  config.add_bias_kv = flag(given.add_bias_kv, {function, "config.add_bias_kv"});
  config.add_zero_attn = flag(given.add_zero_attn, {function, "config.add_zero_attn"});
  config.kdim = given.kdim;
  config.vdim = given.vdim;
  config.dropout = given.dropout;
  config.dtype = enum_of(given.dtype, DType::kInt64, {function, "config.dtype"});
  require_zero(given.reserved_too, {function, "config.reserved_too"});
  config.num_kv_heads = given.num_kv_heads;
  config.head_dim = given.head_dim;
  config.qk_norm = flag(given.qk_norm, {function, "config.qk_norm"});
  if (given.qk_norm_eps != 0) config.qk_norm_eps = given.qk_norm_eps;
  config.rope = rope_of(given, {function, "config.rope_pairs"}, {function, "config.rope_scaling"});
  return config;
}

polyhead_mha_config c_config(const MultiheadAttention::Config& config) {
  return {.struct_size = sizeof(polyhead_mha_config),
          .embed_dim = config.embed_dim,
          .num_heads = config.num_heads,
          .kdim = config.kdim,
          .vdim = config.vdim,
          .dropout = config.dropout,
          .seed = 0,
          .layout = static_cast<int32_t>(config.layout),
          .dtype = static_cast<int32_t>(config.dtype),
          .no_bias = !config.bias,
          .add_bias_kv = config.add_bias_kv,
          .add_zero_attn = config.add_zero_attn,
          .reserved = 0,
          .num_kv_heads = config.num_kv_heads,
          .head_dim = config.head_dim,
          .qk_norm_eps = config.qk_norm_eps,
          .rope_base = config.rope.base,
          .rope_factor = config.rope.factor,
          .rope_low_freq_factor = config.rope.low_freq_factor,
          .rope_high_freq_factor = config.rope.high_freq_factor,
          .rope_rotary_dim = config.rope.rotary_dim,
          .rope_original_length = config.rope.original_length,
          .rope_pairs = static_cast<int32_t>(config.rope.pairs),
          .rope_scaling = static_cast<int32_t>(config.rope.scaling),
          .qk_norm = config.qk_norm,
          .reserved_too = 0};
}

}  // namespace

ForwardOptions forward_options(const polyhead_forward_options* given, const char* function) {
  const auto options = read_options(given, {function, "options"});
  return {
      .attn_mask = optional_view(options.attn_mask, {function, "options.attn_mask"}),
      .key_padding_mask =
          optional_view(options.key_padding_mask, {function, "options.key_padding_mask"}),
      .is_causal = flag(options.is_causal, {function, "options.is_causal"}),
      .causal_align = enum_of(options.causal_align, CausalAlign::kBottomRight,
                              {function, "options.causal_align"}),
      .need_weights =
          enum_of(options.need_weights, WeightsMode::kPerHead, {function, "options.need_weights"}),
      .empty_rows = enum_of(options.empty_rows, EmptyRow::kNan, {function, "options.empty_rows"}),
      .query_position = options.query_position,
      .key_position = options.key_position};
}

}  // namespace polyhead::c_api

extern "C" {

polyhead_status polyhead_mha_load(const char* path, const polyhead_load_options* options,
                                  polyhead_mha** out) {
  const char* function = __func__;
  return c_api::guarded(function, [&] {
    c_api::require_not_null(path, {function, "path"});
    c_api::require_not_null(out, {function, "out"});
    c_api::create<polyhead_mha>(
        polyhead::MultiheadAttention::load(path, c_api::load_options(options, function)), nullptr,
        0, out, function);
  });
}

polyhead_status polyhead_mha_create(const polyhead_mha_config* config,
                                    const polyhead_parameter* parameters, size_t num_parameters,
                                    polyhead_mha** out) {
  const char* function = __func__;
  return c_api::guarded(function, [&] {
    c_api::require_not_null(config, {function, "config"});
    c_api::require_not_null(out, {function, "out"});
    const auto given = c_api::read_options(config, {function, "config"});
    c_api::create<polyhead_mha>(
        polyhead::MultiheadAttention(c_api::config_of(given, function), given.seed), parameters,
        num_parameters, out, function);
  });
}

void polyhead_mha_destroy(polyhead_mha* mha) { delete mha; }

// over-budget: seven parameters; the public names fix them.
polyhead_status polyhead_mha_forward(const polyhead_mha* mha,
                                     const polyhead_forward_options* options,
                                     const polyhead_tensor* query, const polyhead_tensor* key,
                                     const polyhead_tensor* value, const polyhead_tensor* out,
                                     const polyhead_tensor* weights) {
  const char* function = __func__;
  return c_api::guarded(function, [&] {
    c_api::require_not_null(mha, {function, "mha"});
    const auto query_view = c_api::required_view(query, {function, "query"});
    const auto key_view = c_api::required_view(key, {function, "key"});
    const auto value_view = c_api::required_view(value, {function, "value"});
    const auto out_view = c_api::required_view(out, {function, "out"});
    const auto weights_view = c_api::optional_view(weights, {function, "weights"});
    mha->module.forward_into(query_view, key_view, value_view,
                             c_api::forward_options(options, function), out_view, weights_view);
  });
}

polyhead_status polyhead_mha_forward_cached(const polyhead_mha* mha,
                                            const polyhead_cached_forward_options* options,
                                            polyhead_kv_cache* cache, const polyhead_tensor* query,
                                            const polyhead_tensor* out) {
  const char* function = __func__;
  return c_api::guarded(function, [&] {
    c_api::require_not_null(mha, {function, "mha"});
    c_api::require_not_null(cache, {function, "cache"});
    const auto given = c_api::read_options(options, {function, "options"});
    const auto lengths = c_api::optional_view(given.lengths, {function, "options.lengths"});
    const auto query_view = c_api::required_view(query, {function, "query"});
    const auto out_view = c_api::required_view(out, {function, "out"});
    mha->module.forward_cached_into(query_view, &cache->cache,
                                    {.lengths = lengths, .sequence = given.sequence}, out_view);
  });
}

polyhead_status polyhead_mha_cache_config(const polyhead_mha* mha, int64_t batch, int64_t num_pages,
                                          polyhead_kv_cache_config* config) {
  const char* function = __func__;
  return c_api::guarded(function, [&] {
    c_api::require_not_null(mha, {function, "mha"});
    c_api::write_options(config, c_api::c_cache_config(mha->module.cache_config(batch, num_pages)),
                         {function, "config"});
  });
}

polyhead_status polyhead_mha_save(const polyhead_mha* mha, const char* path, const char* prefix) {
  return c_api::save(mha, path, prefix, __func__);
}

polyhead_status polyhead_mha_get_config(const polyhead_mha* mha, polyhead_mha_config* config) {
  const char* function = __func__;
  return c_api::guarded(function, [&] {
    c_api::require_not_null(mha, {function, "mha"});
    c_api::write_options(config, c_api::c_config(mha->module.config()), {function, "config"});
  });
}

polyhead_status polyhead_mha_num_parameters(const polyhead_mha* mha, size_t* out) {
  return c_api::num_parameters(mha, out, __func__);
}

polyhead_status polyhead_mha_parameter_at(const polyhead_mha* mha, size_t index,
                                          polyhead_parameter* out) {
  return c_api::parameter_at(mha, index, out, __func__);
}

polyhead_status polyhead_mha_get_parameter(const polyhead_mha* mha, const char* name,
                                           polyhead_tensor* out) {
  return c_api::get_parameter(mha, name, out, __func__);
}

polyhead_status polyhead_mha_set_parameter(polyhead_mha* mha, const char* name,
                                           const polyhead_tensor* value) {
  return c_api::set_parameter(mha, name, value, __func__);
}

}  // extern "C"
