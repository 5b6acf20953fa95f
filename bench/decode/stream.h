// How fast memory can be read, right now, by so many threads.
#pragma once

#include <cstddef>
#include <cstring>

namespace polyhead::bench {

// Reads `count` floats as fast as memory gives them: a part of each line, which brings all of it.
// Sums of whole lines are no such probe where the compiler has but 16 short registers for them.
inline float sum_of(const float* data, size_t count) {
  constexpr size_t kLine = 16, kLines = 4;
  using Part = float __attribute__((vector_size(16)));
  Part sums[kLines] = {};
  for (size_t at = 0; at + kLine * kLines <= count; at += kLine * kLines) {
    for (size_t n = 0; n < kLines; ++n) {
      Part part;
      std::memcpy(&part, data + at + n * kLine, sizeof part);
      sums[n] += part;
    }
  }
  const Part sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  return sum[0] + sum[1] + sum[2] + sum[3];
}

}  // namespace polyhead::bench
