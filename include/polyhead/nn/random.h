// Random numbers whose whole state is two integers, so that a checkpoint can hold it.
#pragma once

#include <cstdint>

#pragma GCC visibility push(default)
namespace polyhead::nn {

// SplitMix64: the same numbers on every machine.
struct Random {
  uint64_t seed = 0;
  uint64_t counter = 0;  // how many numbers have been drawn

  uint64_t bits();
  double uniform();              // [0, 1)
  double normal();               // mean 0, deviation 1; takes a few draws
  int64_t below(int64_t limit);  // 0 .. limit - 1, each as likely; limit >= 1
};

}  // namespace polyhead::nn
#pragma GCC visibility pop
