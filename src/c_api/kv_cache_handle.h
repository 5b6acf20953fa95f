// A cache as callers in C hold it.
#pragma once

#include <polyhead/c_api.h>
#include <polyhead/kv_cache.h>

struct polyhead_kv_cache {
  polyhead::KvCache cache;
};

namespace polyhead::c_api {

polyhead_kv_cache_config c_cache_config(const KvCache::Config& config);

}  // namespace polyhead::c_api
