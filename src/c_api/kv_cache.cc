#include <polyhead/kv_cache.h>

#include <utility>

#include "c_api/attention_arguments.h"
#include "c_api/guard.h"
#include "c_api/kv_cache_handle.h"

namespace c_api = polyhead::c_api;

namespace polyhead::c_api {
namespace {

KvCache::Config config_of(const polyhead_kv_cache_config& given, const char* function) {
  require_zero(given.reserved, {function, "config.reserved"});
  KvCache::Config config;
  if (given.batch != 0) config.batch = given.batch;
  config.num_kv_heads = given.num_kv_heads;
  config.head_dim = given.head_dim;
  config.v_head_dim = given.v_head_dim;
  config.dtype = enum_of(given.dtype, DType::kInt64, {function, "config.dtype"});
  if (given.page_len != 0) config.page_len = given.page_len;
  config.num_pages = given.num_pages;
  config.window = given.window;
  return config;
}

// body(the cache), which must be there.
template <class Handle, class Body>
polyhead_status with(Handle* cache, const char* function, const Body& body) {
  return guarded(function, [&] {
    require_not_null(cache, {function, "cache"});
    body(cache->cache);
  });
}

// The same, for a number that goes to *out.
template <class Get>
polyhead_status ask(const polyhead_kv_cache* cache, int64_t* out, const char* function,
                    const Get& get) {
  return with(cache, function, [&](const KvCache& asked) {
    require_not_null(out, {function, "out"});
    *out = get(asked);
  });
}

}  // namespace

polyhead_kv_cache_config c_cache_config(const KvCache::Config& config) {
  return {.struct_size = sizeof(polyhead_kv_cache_config),
          .batch = config.batch,
          .num_kv_heads = config.num_kv_heads,
          .head_dim = config.head_dim,
          .v_head_dim = config.v_head_dim,
          .page_len = config.page_len,
          .num_pages = config.num_pages,
          .window = config.window,
          .dtype = static_cast<int32_t>(config.dtype),
          .reserved = 0};
}

}  // namespace polyhead::c_api

using polyhead::KvCache;

extern "C" {

polyhead_status polyhead_kv_cache_create(const polyhead_kv_cache_config* config,
                                         polyhead_kv_cache** out) {
  const char* function = __func__;
  return c_api::guarded(function, [&] {
    c_api::require_not_null(config, {function, "config"});
    c_api::require_not_null(out, {function, "out"});
    const auto given = c_api::read_options(config, {function, "config"});
    KvCache cache(c_api::config_of(given, function));
    *out = new polyhead_kv_cache{std::move(cache)};
  });
}

void polyhead_kv_cache_destroy(polyhead_kv_cache* cache) { delete cache; }

polyhead_status polyhead_kv_cache_get_config(const polyhead_kv_cache* cache,
                                             polyhead_kv_cache_config* config) {
  const char* function = __func__;
  return c_api::with(cache, function, [&](const KvCache& asked) {
    c_api::write_options(config, c_api::c_cache_config(asked.config()), {function, "config"});
  });
}

polyhead_status polyhead_kv_cache_length(const polyhead_kv_cache* cache, int64_t sequence,
                                         int64_t* out) {
  return c_api::ask(cache, out, __func__,
                    [&](const KvCache& asked) { return asked.length(sequence); });
}

polyhead_status polyhead_kv_cache_first_kept(const polyhead_kv_cache* cache, int64_t sequence,
                                             int64_t* out) {
  return c_api::ask(cache, out, __func__,
                    [&](const KvCache& asked) { return asked.first_kept(sequence); });
}

polyhead_status polyhead_kv_cache_free_pages(const polyhead_kv_cache* cache, int64_t* out) {
  return c_api::ask(cache, out, __func__, [](const KvCache& asked) { return asked.free_pages(); });
}

polyhead_status polyhead_kv_cache_append(polyhead_kv_cache* cache, const polyhead_tensor* key,
                                         const polyhead_tensor* value,
                                         const polyhead_tensor* lengths) {
  const char* function = __func__;
  return c_api::with(cache, function, [&](KvCache& to) {
    const auto key_view = c_api::required_view(key, {function, "key"});
    const auto value_view = c_api::required_view(value, {function, "value"});
    to.append(key_view, value_view, c_api::optional_view(lengths, {function, "lengths"}));
  });
}

polyhead_status polyhead_kv_cache_append_sequence(polyhead_kv_cache* cache, int64_t sequence,
                                                  const polyhead_tensor* key,
                                                  const polyhead_tensor* value) {
  const char* function = __func__;
  return c_api::with(cache, function, [&](KvCache& to) {
    const auto key_view = c_api::required_view(key, {function, "key"});
    to.append(sequence, key_view, c_api::required_view(value, {function, "value"}));
  });
}

polyhead_status polyhead_kv_cache_truncate(polyhead_kv_cache* cache, int64_t sequence,
                                           int64_t length) {
  return c_api::with(cache, __func__, [&](KvCache& of) { of.truncate(sequence, length); });
}

polyhead_status polyhead_kv_cache_reset(polyhead_kv_cache* cache) {
  return c_api::with(cache, __func__, [](KvCache& of) { of.reset(); });
}

polyhead_status polyhead_kv_cache_reset_sequence(polyhead_kv_cache* cache, int64_t sequence) {
  return c_api::with(cache, __func__, [&](KvCache& of) { of.reset(sequence); });
}

polyhead_status polyhead_kv_cache_attend(const polyhead_kv_cache* cache,
                                         const polyhead_attention_options* options,
                                         const polyhead_tensor* query,
                                         const polyhead_attention_outputs* outputs) {
  const char* function = __func__;
  return c_api::with(cache, function, [&](const KvCache& from) {
    c_api::AttentionArguments arguments(function);
    const auto query_view = arguments.required(query, "query");
    const auto wanted = arguments.outputs(outputs);
    polyhead::attention_forward(query_view, from, arguments.options(options), wanted);
  });
}

}  // extern "C"
