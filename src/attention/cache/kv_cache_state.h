// What a KvCache owns, as attention over it reads it.
#pragma once

#include <cstdint>
#include <vector>

#include <polyhead/kv_cache.h>
#include "attention/attention_call.h"
#include "attention/cache/new_positions.h"
#include "attention/cache/page_memory.h"
#include "attention/cache/page_pool.h"

namespace polyhead {

struct KvCache::State {
  explicit State(const Config& given);
  static State* of(KvCache* cache) { return cache->state_.get(); }

  // Brings `cached` and `lengths` up to date. Inline, and so not exported: the class is the API's.
  void follow_pool() noexcept {
    for (size_t n = 0; n < cached.size(); ++n) {
      const SequencePages& of = pool.sequence(static_cast<int64_t>(n));
      cached[n] = {of.pages.data(), of.first_page, of.length};
      lengths[n] = of.length;
    }
  }

  Config config;
  PageMemory key_memory, value_memory;
  // All pages: value [P, Hkv, page_len, Dv], and key by blocks of 32 positions, whose columns lie
  // in rows, so that attention reads vectors of keys: [P, Hkv, 32, page_len / 32 * D], strides
  // {.., .., 1, 32}.
  TensorView key, value;
  PagePool pool;
  std::vector<CachedSequence> cached;  // what the pool says of each sequence,
  std::vector<int64_t> lengths;        // [B]
  NewPositions added;                  // of an append
};

// Throws InvalidArgument unless the sequences can grow by what is counted in state.added.
void require_room(const KvCache::State& state, const AppendNames& names);

// Appends that, which there must be room for. key [B', Hkv, .., D], value [B', Hkv, .., Dv], of the
// cache's dtype. Throws std::bad_alloc, and nothing has changed then.
void append_added(KvCache::State* state, const ConstTensorView& key, const ConstTensorView& value);

// What a cache adds to the masks of attention over it: each sequence's length and the window, if
// there is one.
inline Mask lengths_mask(const KvCache::State& state) {
  return Mask::key_lengths({state.lengths.data(), {state.config.batch}});
}
inline Mask window_mask(const KvCache::Config& config, QueryOffset place) {
  return Mask::window(config.window - 1, Mask::kUnbounded, place);
}

}  // namespace polyhead
