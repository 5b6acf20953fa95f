// Size arithmetic that cannot wrap around.
#pragma once

#include <cstddef>
#include <cstdint>

namespace polyhead {

// Each returns false, and leaves *out alone, when the result does not fit.
inline bool checked_multiply(int64_t a, int64_t b, int64_t* out) {
  int64_t product;
  if (__builtin_mul_overflow(a, b, &product)) return false;
  *out = product;
  return true;
}

inline bool checked_add(int64_t a, int64_t b, int64_t* out) {
  int64_t sum;
  if (__builtin_add_overflow(a, b, &sum)) return false;
  *out = sum;
  return true;
}

inline size_t round_up(size_t n, size_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

}  // namespace polyhead
