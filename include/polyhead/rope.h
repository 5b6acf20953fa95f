// Rotary positions: how query and key of a MultiheadAttention turn with their place.
//
//   .rope = {.pairs = RopePairs::kHalves, .base = 500000}       // Config::rope, LoadOptions::rope
//
// Pair i of a head's first rotary_dim numbers turns by position * frequency[i] radians,
// frequency[i] = base^(-2 i / rotary_dim), before scaling. Of the angle nothing is lost to rounding
// but what 2^-64 of a turn is for each position.
#pragma once

#include <cstdint>

#pragma GCC visibility push(default)
namespace polyhead {

// Which numbers of a head are a pair; a wrong guess is silent, so it must be said.
enum class RopePairs {
  kNone,         // no rotary positions
  kHalves,       // (i, i + rotary_dim / 2): LLaMA, Mistral and Qwen as transformers saves them
  kInterleaved,  // (2 i, 2 i + 1): the paper, LLaMA as Meta saves it, GPT-J
};

// For sequences longer than those of training.
enum class RopeScaling {
  kNone,
  kLinear,  // each frequency / factor
  kNtk,     // base * factor^(rotary_dim / (rotary_dim - 2)): the slowest pair as with kLinear, the
            // fastest as before
  kLlama3,  // by turns = original_length * frequency / (2 pi): from high_freq_factor on as before,
            // up to low_freq_factor / factor, between the two a blend, linear in turns
};

struct Rope {
  RopePairs pairs = RopePairs::kNone;
  double base = 10000;
  int64_t rotary_dim = 0;  // even; the other numbers of a head stay as they are. 0: head_dim
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1;  // of the scaling, at least 1
  // Of kLlama3.
  double low_freq_factor = 1, high_freq_factor = 4;
  int64_t original_length = 8192;

  bool operator==(const Rope&) const = default;
};

}  // namespace polyhead
#pragma GCC visibility pop
