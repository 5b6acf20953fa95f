// Which pairs of a call dropout drops: a function of seed, call, head, query and key alone, so that
// forward and backward, any tiling and any number of threads agree without a mask in memory.
//
// A pair has 16 random bits. One philox of the counter {call, batch item * H + head, query, key /
// 8} under the seed is 4 words; the low and the high half of each, in order, belong to 8 keys. A
// pair is kept if its bits are threshold() or more.
#pragma once

#include <cstdint>

#include <polyhead/tensor_view.h>

namespace polyhead {

struct Dropout {
  double p = 0;
  uint64_t seed = 0;
  uint32_t call = 0;

  // p in units of 2^-16, to the nearest. 0: no dropout.
  uint32_t threshold() const;
  // What kept probabilities are multiplied with, so that the expectation stays: 1 / (1 - p) of the
  // p that the threshold stands for; 0 where none is kept.
  double scale() const;
  // head: batch item * H + head. key: its index, or kFirstAppendedKey + n.
  bool keeps(int64_t head, int64_t query, int64_t key) const;
};

// Appended columns have indices of their own, which do not move with the number of keys.
inline constexpr int64_t kFirstAppendedKey = int64_t{8} * 0xffffffff;

// Throws InvalidArgument, `function` leading the message, unless p is a probability and the counter
// has room for the shape [B, H, L, S].
void validate_dropout(const Dropout& dropout, Shape shape, const char* function);

}  // namespace polyhead
