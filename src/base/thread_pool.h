// Fork-join over the pool, or over the threads the host lent.
#pragma once

#include <cstddef>

#include <polyhead/runtime.h>

namespace polyhead {

// Calls task(argument, i) for each i in [0, count), in any order, on up to num_threads() threads
// with the default floating-point environment (round to nearest, no flush to zero); returns when
// all are done. Tasks are noexcept. Runs inline, in order, when count is 1, one thread is set, or
// the pool is busy with another caller.
void parallel_for(size_t count, ParallelTask task, void* argument);

// The same with a callable.
template <class F>
void parallel_for(size_t count, const F& body) {
  parallel_for(
      count, [](void* argument, size_t i) { (*static_cast<const F*>(argument))(i); },
      const_cast<F*>(&body));
}

}  // namespace polyhead
