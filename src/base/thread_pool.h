// Fork-join over the pool, or over the threads the host lent.
#pragma once

#include <cstddef>

#include <polyhead/runtime.h>

namespace polyhead {

// parallel_for of <polyhead/runtime.h> with a callable.
template <class F>
void parallel_for(size_t count, const F& body) {
  parallel_for(
      count, [](void* argument, size_t i) { (*static_cast<const F*>(argument))(i); },
      const_cast<F*>(&body));
}

}  // namespace polyhead
