// Random numbers that are the same on every machine, and whose state is two integers.
//
// SplitMix64: state += 0x9e3779b97f4a7c15, then two xor-shift-multiplies; a uniform number is the
// top 53 bits. The normal distribution is sampled exactly by comparing uniform numbers (Karney,
// "Sampling exactly from the normal distribution", 2016), so that no value depends on a libm.
#pragma once

#include <cstdint>

namespace polyhead {

class Random {
 public:
  // As after `counter` draws of bits().
  explicit Random(uint64_t seed, uint64_t counter = 0) : seed_(seed), counter_(counter) {}

  uint64_t counter() const { return counter_; }

  uint64_t bits() {
    uint64_t z = seed_ + ++counter_ * 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  double uniform() {  // [0, 1), a multiple of 2^-53
    return static_cast<double>(bits() >> 11) * 0x1p-53;
  }

  // Mean 0, deviation 1. The density of k + x for k = 0, 1, ... and x in [0, 1) is
  //   exp(-(k + x)^2 / 2) = exp(-1/2)^k . exp(-1/2)^(k (k - 1)) . exp(-x (2k + x) / 2).
  double normal() {
    for (;;) {
      int k = 0;
      while (accept_exp(0.5)) ++k;
      bool accepted = true;
      for (int i = 0; i < k * (k - 1) && accepted; ++i) accepted = accept_exp(0.5);
      const double x = uniform();
      for (int i = 0; i <= k && accepted; ++i) accepted = accept_exp(x * (2 * k + x) / (2 * k + 2));
      if (accepted) return (bits() >> 63) != 0 ? -(k + x) : k + x;
    }
  }

 private:
  // True with probability exp(-p), 0 <= p <= 1. Von Neumann: the chance that a run
  // p > u1 > u2 > ... has length n or more is p^n / n!, so the chance of an even length is exp(-p).
  bool accept_exp(double p) {
    bool even = true;
    for (double last = p, u; (u = uniform()) < last; last = u) even = !even;
    return even;
  }

  uint64_t seed_, counter_;
};

}  // namespace polyhead
