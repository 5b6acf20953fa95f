// The positions that sequences of a cache grow by: how many each, where they lie in tensors, and
// whether there is room.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <polyhead/error.h>
#include <polyhead/tensor_view.h>
#include "base/message.h"

namespace polyhead {

inline constexpr int64_t kMostPositions = std::numeric_limits<int32_t>::max();  // as score_mod has

// Whom a refusal is told by, and of which argument: "KvCache::append: key: ...".
struct AppendNames {
  const char* function;
  const char* argument;
};

[[noreturn]] inline void refuse_cache(const char* function, const std::string& argument,
                                      const std::string& got, const std::string& need) {
  throw InvalidArgument(message(function, ": ", argument, ": ", got, "; must be ", need));
}

class NewPositions {
 public:
  explicit NewPositions(int64_t batch)
      : counts_(static_cast<size_t>(batch)), bounds_(counts_.size() + 1) {}

  // Each sequence gets `most`, or the first lengths[n] of so many: int32 or int64 [B], or
  // undefined. Throws InvalidArgument.
  void count_all(int64_t most, const ConstTensorView& lengths, const AppendNames& names);
  void count_one(int64_t sequence, int64_t count);
  // From here on the tensors hold the rows of all sequences after each other, in one item. Before,
  // sequence n's are the first of item n.
  void pack();

  const std::vector<int64_t>& counts() const { return counts_; }
  bool packed() const { return packed_; }
  // Where the rows of each begin, packed: [B + 1].
  ConstTensorView bounds() const {
    return {bounds_.data(), {static_cast<int64_t>(bounds_.size())}};
  }
  int64_t count(int64_t n) const { return counts_[static_cast<size_t>(n)]; }

  // What is sequence n's of [B', heads, rows, columns]: [1, heads, count(n), columns].
  template <class View>
  View rows(const View& of, int64_t n) const {
    if (!packed_) return of.narrow(0, n, 1).narrow(2, 0, count(n));
    return of.narrow(2, bounds_[static_cast<size_t>(n)], count(n));
  }

 private:
  std::vector<int64_t> counts_, bounds_;
  bool packed_ = false;
};

}  // namespace polyhead
