#include "demo/head_roles.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/message.h"

namespace polyhead::cli {
namespace {

bool is_punctuation_token(const Token& token) {
  const std::u32string text = decode_utf8(token.text);
  return std::all_of(text.begin(), text.end(), is_punctuation);
}

// A token of the same word, or the same token elsewhere.
bool is_same_word(const Token& query, const Token& key) {
  return query.word == key.word || query.id == key.id;
}

// By role: is the key that to the query? `punctuation` tells for each token.
std::array<bool, kNumRoles> roles_of(const std::vector<Token>& tokens,
                                     const std::vector<bool>& punctuation, size_t query,
                                     size_t key) {
  std::array<bool, kNumRoles> is = {};
  const auto set = [&](Role role, bool value) { is[static_cast<size_t>(role)] = value; };
  const bool inside = key > 0 && key + 1 < tokens.size();
  set(Role::kFirst, key == 0);
  set(Role::kLast, key + 1 == tokens.size());
  set(Role::kItself, key == query);
  set(Role::kPrevious, key + 1 == query);
  set(Role::kNext, key == query + 1);
  set(Role::kSameWord, inside && key != query && is_same_word(tokens[query], tokens[key]));
  set(Role::kPunctuation, inside && punctuation[key]);
  set(Role::kOther, std::none_of(is.begin(), is.end(), [](bool value) { return value; }));
  return is;
}

// weights [len, len] of one sentence without its padding.
void add_sentence(const ConstTensorView& weights, const std::vector<Token>& tokens,
                  HeadSummary* sum) {
  const HeadStats stats = head_stats(weights);
  sum->stats.entropy_bits += stats.entropy_bits;
  sum->stats.mean_distance += stats.mean_distance;
  sum->stats.previous += stats.previous;
  sum->stats.next += stats.next;
  sum->stats.diagonal += stats.diagonal;
  sum->stats.first += stats.first;
  sum->evenness += stats.entropy_bits / std::log2(static_cast<double>(tokens.size()));
  std::vector<bool> punctuation;
  for (const Token& token : tokens) punctuation.push_back(is_punctuation_token(token));
  const double row_share = 1 / static_cast<double>(tokens.size());
  for (size_t query = 0; query < tokens.size(); ++query) {
    for (size_t key = 0; key < tokens.size(); ++key) {
      const auto is = roles_of(tokens, punctuation, query, key);
      const double weight =
          weight_at(weights, static_cast<int64_t>(query), static_cast<int64_t>(key));
      for (size_t role = 0; role < kNumRoles; ++role) {
        if (is[role]) sum->mass[role] += row_share * weight;
      }
    }
  }
}

void scale(HeadSummary* sum, double factor) {
  HeadStats& stats = sum->stats;
  for (double* x : {&stats.entropy_bits, &stats.mean_distance, &stats.previous, &stats.next,
                    &stats.diagonal, &stats.first, &sum->evenness}) {
    *x *= factor;
  }
  for (double& mass : sum->mass) mass *= factor;
}

// The two roles with the most weight, unless all tokens get nearly the same.
std::string in_words(const HeadSummary& summary) {
  constexpr double kEven = 0.9;
  if (summary.evenness >= kEven) return "all tokens nearly alike";
  std::array<size_t, kNumRoles> order;
  std::iota(order.begin(), order.end(), size_t{0});
  std::partial_sort(order.begin(), order.begin() + 2, order.end(),
                    [&](size_t a, size_t b) { return summary.mass[a] > summary.mass[b]; });
  const auto named = [&](size_t role) {
    return message(role_name(static_cast<Role>(role)), " ", std::lround(100 * summary.mass[role]),
                   " %");
  };
  return named(order[0]) + ", " + named(order[1]);
}

}  // namespace

const char* role_name(Role role) {
  switch (role) {
    case Role::kFirst:
      return "[CLS]";
    case Role::kLast:
      return "[SEP]";
    case Role::kItself:
      return "itself";
    case Role::kSameWord:
      return "same word";
    case Role::kPrevious:
      return "previous token";
    case Role::kNext:
      return "next token";
    case Role::kPunctuation:
      return "punctuation";
    case Role::kOther:
      break;
  }
  return "other words";
}

std::vector<HeadSummary> summarise_heads(const ConstTensorView& weights,
                                         const std::vector<std::vector<Token>>& sentences) {
  std::vector<HeadSummary> summaries(static_cast<size_t>(weights.size(1)));
  for (size_t head = 0; head < summaries.size(); ++head) {
    for (size_t b = 0; b < sentences.size(); ++b) {
      const auto len = static_cast<int64_t>(sentences[b].size());
      add_sentence(weights.select(0, static_cast<int64_t>(b))
                       .select(0, static_cast<int64_t>(head))
                       .narrow(0, 0, len)
                       .narrow(1, 0, len),
                   sentences[b], &summaries[head]);
    }
    scale(&summaries[head], 1 / static_cast<double>(sentences.size()));
    summaries[head].words = in_words(summaries[head]);
  }
  return summaries;
}

}  // namespace polyhead::cli
