// New positions of a cache with their queries: appended, and attended to causally, both or neither.
#pragma once

#include <cstdint>

#include <polyhead/kv_cache.h>
#include "attention/attention_call.h"
#include "attention/cache/kv_cache_state.h"

namespace polyhead {

class CachedStep {
 public:
  // Throw InvalidArgument, in the words of `names`, unless the cache has room.
  // Each sequence gets `len` positions, or, if they are given, the first lengths[n] of them.
  static CachedStep of_all(KvCache* cache, int64_t len, const ConstTensorView& lengths,
                           const AppendNames& names);
  static CachedStep of_one(KvCache* cache, int64_t sequence, int64_t len, const AppendNames& names);

  int64_t num_sequences() const { return state_.config.batch; }
  // New positions of a sequence, the first of them, and the number of all.
  int64_t count(int64_t n) const { return state_.added.count(n); }
  int64_t position(int64_t n) const { return state_.lengths[static_cast<size_t>(n)]; }
  int64_t total() const;
  // Tensors of the step are [1, heads, total, D], with the rows of the sequences after each other,
  // or else, where all have as many, [B, heads, len, D].
  bool packed() const { return state_.added.packed(); }
  // Sequence n's part of such a tensor.
  template <class View>
  View rows(const View& of, int64_t n) const {
    return state_.added.rows(of, n);
  }

  // Appends key and value, [.., Hkv, .., D], and completes and runs the call, which has queries,
  // a scale and outputs. Once; throws std::bad_alloc, and the cache has not changed then.
  void run(AttentionCall call, const ConstTensorView& key, const ConstTensorView& value) const;

 private:
  explicit CachedStep(KvCache::State* state) : state_(*state) {}
  static CachedStep checked(KvCache::State* state, int64_t len, const AppendNames& names);

  KvCache::State& state_;
};

}  // namespace polyhead
