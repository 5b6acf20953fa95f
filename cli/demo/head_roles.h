// What a head looks at, in words.
#pragma once

#include <array>
#include <string>
#include <vector>

#include <polyhead/tensor_view.h>
#include "demo/word_piece.h"
#include "report/head_stats.h"

namespace polyhead::cli {

// What a key can be to a query. A key may be several at once: the previous token may be [CLS].
enum class Role { kFirst, kLast, kItself, kSameWord, kPrevious, kNext, kPunctuation, kOther };
inline constexpr size_t kNumRoles = 8;
const char* role_name(Role role);  // "[CLS]", "previous token", ...

struct HeadSummary {
  HeadStats stats;                          // means over the sentences
  std::array<double, kNumRoles> mass = {};  // share of the weight on keys of each role
  double evenness = 0;  // entropy as a share of the largest possible: 1 looks at all alike
  std::string words;    // "previous token 63 %, [CLS] 20 %"
};

// weights [batch, num_heads, len, len] of one layer -> one summary a head. Every sentence counts
// alike; queries and keys beyond its tokens do not.
std::vector<HeadSummary> summarise_heads(const ConstTensorView& weights,
                                         const std::vector<std::vector<Token>>& sentences);

}  // namespace polyhead::cli
