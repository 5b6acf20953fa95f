// A cache as callers in C hold it.
#pragma once

#include <polyhead/c_api.h>
#include <polyhead/kv_cache.h>

struct polyhead_kv_cache {
  polyhead::KvCache cache;
};
