// Tasks of unequal cost over the threads, each thread with scratch memory of its own.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>

#include "base/checked_math.h"
#include "base/thread_pool.h"
#include "base/workspace.h"

namespace polyhead {

// Below this many flops, waking a thread costs more than it saves: about 10 us of one core.
inline constexpr double kInlineFlops = 2e5;

inline size_t task_workers(size_t count, double flops) {
  return std::min(flops < kInlineFlops ? 1 : static_cast<size_t>(num_threads()), count);
}

// Takes the memory that parallel_tasks will want, so that it cannot fail any more, provided that
// the calling thread's leases are the same then. Throws std::bad_alloc.
inline void reserve_task_memory(size_t count, double flops, size_t workspace_bytes) {
  WorkspaceLease lease;
  lease.reserve(round_up(workspace_bytes, kAlignment) * task_workers(count, flops));
}

// Calls body(task, workspace) for each task in [0, count), lowest first, each thread taking the
// next one when it is free. body is noexcept. All memory is the calling thread's, allocated before
// the first task runs and kept for the next call. Throws std::bad_alloc. body must not call this
// again.
template <class F>
void parallel_tasks(size_t count, double flops, size_t workspace_bytes, const F& body) {
  const size_t bytes = round_up(workspace_bytes, kAlignment);
  const size_t workers = task_workers(count, flops);
  WorkspaceLease lease;
  std::byte* memory = lease.reserve(std::max<size_t>(bytes * workers, 1));
  if (workers == 1) {  // no atomic steps: until one is done, a CPU begins nothing of the next task
    return parallel_for(1, [&](size_t) {
      for (size_t task = 0; task < count; ++task) body(task, memory);
    });
  }
  std::atomic<size_t> next{0};
  parallel_for(workers, [&](size_t worker) {
    for (size_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < count;) {
      body(task, memory + worker * bytes);
    }
  });
}

}  // namespace polyhead
