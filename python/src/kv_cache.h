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
// waits for the other's.
class SharedCache {
 public:
  explicit SharedCache(const KvCache::Config& config) : cache_(config) {}

  // use(cache), while nobody changes it.
  template <class Use>
  auto read(const Use& use) const {
    nanobind::gil_scoped_release others_may_run;
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
    const std::unique_lock alone(mutex_);
    in_names([] { return Renames{{"KvCache::", "KvCache."}}; }, [&] { change(cache_); });
  }

  const KvCache::Config& config() const { return cache_.config(); }

 private:
  KvCache cache_;
  mutable std::shared_mutex mutex_;
};

}  // namespace polyhead::python
