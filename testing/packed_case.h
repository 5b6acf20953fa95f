// Lengths of the sequences of packed batches.
//
//   const AttentionProblem packed({.lengths = {{5, 0, 70}, {9, 3, 70}}});
#pragma once

#include <vector>

#include "testing/attention_case.h"

namespace polyhead::oracle {

// Of every kind: none, few rows, whole tiles and not, several chunks.
inline std::vector<Lengths> some_lengths() {
  return {{{5}, {9}},
          {{1, 2, 3}, {4, 0, 70}},
          {{0, 48, 0, 50, 3}, {7, 48, 0, 61, 600}},
          {{17, 100, 16, 0}, {1100, 20, 8, 8}},
          {{0, 0}, {0, 5}}};
}

}  // namespace polyhead::oracle
