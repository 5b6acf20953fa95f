// How fast memory can be read, right now, by so many threads.
#pragma once

#include <cstddef>
#include <cstring>

namespace polyhead::bench {

// The sum of `count` floats in chains of whole cache lines: as fast as memory gives them.
inline float sum_of(const float* data, size_t count) {
  constexpr size_t kLine = 16, kLines = 8;
  using Line = float __attribute__((vector_size(64)));
  Line sums[kLines] = {};
  for (size_t at = 0; at + kLine * kLines <= count; at += kLine * kLines) {
    for (size_t n = 0; n < kLines; ++n) {
      Line line;
      std::memcpy(&line, data + at + n * kLine, sizeof line);
      sums[n] += line;
    }
  }
  float sum = 0;
  for (const Line& line : sums) {
    for (size_t lane = 0; lane < kLine; ++lane) sum += line[lane];
  }
  return sum;
}

}  // namespace polyhead::bench
