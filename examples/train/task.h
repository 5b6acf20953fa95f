// What the model learns: rows of tokens in which a piece comes twice.
//
//   tokens   x x x a b c d a b c d      x: `begin` tokens; then `period` tokens, two times
//   targets  . . . . . . . b c d .      the next token, where the row so far says which it must be
//
// Where the piece begins and how long it is differs from row to row, so that no position says where
// to look: only the token that stood after the same token before. All tokens of a row but its
// second copy are different ones, so that this is one place.
#pragma once

#include <cstdint>
#include <vector>

#include <polyhead/nn.h>

namespace train {

struct Task {
  int64_t vocabulary = 64, length = 48;
};

struct Repeat {
  int64_t begin = 0, period = 0;
};

struct Batch {
  polyhead::Tensor tokens, targets;  // int64 [batch, length]; kNoTarget where nothing is asked
  std::vector<Repeat> repeats;       // one for each row
};

inline constexpr int64_t kNoTarget = -100;  // cross_entropy's ignore_index

Batch draw_batch(const Task& task, int64_t rows, polyhead::nn::Random* random);

}  // namespace train
