// What a KvCache owns, as attention over it reads it.
#pragma once

#include <cstdint>
#include <vector>

#include <polyhead/kv_cache.h>
#include "attention/attention_call.h"
#include "attention/cache/page_pool.h"
#include "base/workspace.h"

namespace polyhead {

struct KvCache::State {
  explicit State(const Config& given);

  // Brings `cached` and `lengths` up to date. Inline, and so not exported: the class is the API's.
  void follow_pool() noexcept {
    for (size_t n = 0; n < cached.size(); ++n) {
      const SequencePages& of = pool.sequence(static_cast<int64_t>(n));
      cached[n] = {of.pages.data(), of.first_page, of.length};
      lengths[n] = of.length;
    }
  }

  Config config;
  AlignedBytes key_memory, value_memory;
  TensorView key, value;  // [num_pages, Hkv, page_len, D] and Dv
  PagePool pool;
  std::vector<CachedSequence> cached;  // what the pool says of each sequence,
  std::vector<int64_t> lengths;        // [B]
  std::vector<int64_t> counts;         // [B] of an append
};

}  // namespace polyhead
