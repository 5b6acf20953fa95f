// How many times a test program has allocated, and how much. Needs testing/allocations.cc among the
// program's own sources: that replaces operator new, so it is not in the library of tools.
#pragma once

namespace polyhead::oracle {

long allocations();      // of all threads, so far
long allocated_bytes();  // the same in bytes

// Calls `body` once, then counts what five more calls allocate.
template <class F>
long allocations_after_the_first(const F& body) {
  body();
  const long before = allocations();
  for (int i = 0; i < 5; ++i) body();
  return allocations() - before;
}

}  // namespace polyhead::oracle
