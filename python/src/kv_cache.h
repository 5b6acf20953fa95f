// The keys and values of a decoder's past, which several Python threads may use at once.
#pragma once

#include <nanobind/nanobind.h>
#include <polyhead/kv_cache.h>

#include <mutex>
#include <shared_mutex>

#include "renames.h"
#include "score_mod.h"

namespace polyhead::python {

// The GIL is let go before a lock is waited for and taken back after the lock is given up: none
// waits for the other's. The shared lock alone lets readers in for ever while a change waits: all
// pass the turnstile, where a waiting change stops those that come later.
class SharedCache {
 public:
  explicit SharedCache(const KvCache::Config& config) : cache_(config) {}

  // use(cache), while nobody changes it.
  template <class Use>
  auto read(const Use& use) const {
    // A score_mod's own look at the cache must not wait for a change that waits for its attend.
    const bool inner = in_score_function();
    nanobind::gil_scoped_release others_may_run;
    if (!inner) const std::scoped_lock pass(turnstile_);
    const std::shared_lock unchanged(mutex_);
    return use(cache_);
  }

  // change(cache), while nobody else uses it. A score_mod is called while somebody does.
  template <class Change>
  void change(const Change& change) {
    if (in_score_function()) {
      throw InvalidArgument(
          "KvCache: changed by a score_mod; need to wait until attend has returned");
    }
    nanobind::gil_scoped_release others_may_run;
    std::unique_lock waiting(turnstile_);
    const std::unique_lock alone(mutex_);
    waiting.unlock();
    in_names(
        [] { return Renames{{"KvCache::", "KvCache."}, {"must be undefined", "must be None"}}; },
        [&] { change(cache_); });
  }

  const KvCache::Config& config() const { return cache_.config(); }

 private:
  KvCache cache_;
  mutable std::mutex turnstile_;
  mutable std::shared_mutex mutex_;
};

}  // namespace polyhead::python
