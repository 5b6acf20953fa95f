// Functions on scores for tests, by way of per_score.
#pragma once

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <limits>

#include <polyhead/score_mod.h>

namespace polyhead::oracle {

// Distances at a slope of each head's and batch item's own, as ALiBi has them.
struct Slopes {
  template <class T>
  T operator()(T score, int batch, int head, int query, int key) const {
    const T slope = static_cast<T>(head + 1) * static_cast<T>(0.125) + static_cast<T>(batch);
    return score - slope * static_cast<T>(std::abs(query - key));
  }
  template <class T>
  T derivative(T, int, int, int, int) const {
    return 1;
  }
};

// A curve; and every third pair, and those that are far apart, are hidden.
struct Curved {
  int near = 40;
  template <class T>
  T operator()(T score, int, int head, int query, int key) const {
    const bool hides = (query + 2 * key + head) % 3 == 0 || std::abs(query - key) > near;
    if (hides) return -std::numeric_limits<T>::infinity();
    return score / (1 + score * score);
  }
  template <class T>
  T derivative(T score, int, int, int, int) const {
    const T below = 1 + score * score;
    return (1 - score * score) / (below * below);
  }
};

// The same as Curved, but it says so of whole blocks.
struct CurvedInBlocks : Curved {
  mutable std::atomic<int> empty = 0;
  bool is_empty(const ScoreBlock& block) const {
    const bool before = block.first_key + block.num_keys - 1 < block.first_query - near;
    const bool behind = block.first_key > block.first_query + block.num_queries - 1 + near;
    empty += before || behind;
    return before || behind;
  }
};

}  // namespace polyhead::oracle
