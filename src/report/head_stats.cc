#include "report/head_stats.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <map>
#include <string_view>
#include <vector>

namespace polyhead {
namespace {

// Adds one row; false if it has no weights to count.
bool add_row(const ConstTensorView& weights, int64_t query, HeadStats* sum) {
  HeadStats row;
  double mass = 0;
  for (int64_t key = 0; key < weights.size(1); ++key) {
    const double w = weight_at(weights, query, key);
    if (!(w > 0)) continue;
    mass += w;
    row.entropy_bits -= w * std::log2(w);
    row.mean_distance += w * static_cast<double>(std::abs(query - key));
    if (key == query - 1) row.previous += w;
    if (key == query + 1) row.next += w;
    if (key == query) row.diagonal += w;
    if (key == 0) row.first += w;
  }
  sum->entropy_bits += row.entropy_bits;
  sum->mean_distance += row.mean_distance;
  sum->previous += row.previous;
  sum->next += row.next;
  sum->diagonal += row.diagonal;
  sum->first += row.first;
  return mass > 0;
}

bool sees_anything(const ConstTensorView& weights, int64_t query) {
  int64_t key = 0;
  while (key < weights.size(1) && !(weight_at(weights, query, key) > 0)) ++key;
  return key < weights.size(1);
}

}  // namespace

double induction_score(const ConstTensorView& weights, std::span<const std::string> tokens) {
  std::map<std::string_view, std::vector<int64_t>> followed_by;  // the places after a token
  double sum = 0;
  int64_t rows = 0;
  for (int64_t query = 1; query < weights.size(0); ++query) {
    // At this moment the places that it knows lie before the query.
    const auto known = followed_by.find(tokens[static_cast<size_t>(query)]);
    if (known != followed_by.end() && sees_anything(weights, query)) {
      ++rows;
      for (const int64_t key : known->second) sum += std::max(0.0, weight_at(weights, query, key));
    }
    followed_by[tokens[static_cast<size_t>(query - 1)]].push_back(query);
  }
  return rows > 0 ? sum / static_cast<double>(rows) : std::numeric_limits<double>::quiet_NaN();
}

double weight_at(const ConstTensorView& weights, int64_t query, int64_t key) {
  const int64_t offset = query * weights.stride(0) + key * weights.stride(1);
  return weights.dtype() == DType::kFloat64 ? weights.data_as<double>()[offset]
                                            : static_cast<double>(weights.data_as<float>()[offset]);
}

HeadStats head_stats(const ConstTensorView& weights) {
  HeadStats sum;
  int64_t rows = 0;
  for (int64_t query = 0; query < weights.size(0); ++query) rows += add_row(weights, query, &sum);
  const double share =
      rows > 0 ? 1 / static_cast<double>(rows) : std::numeric_limits<double>::quiet_NaN();
  return {.entropy_bits = sum.entropy_bits * share,
          .mean_distance = sum.mean_distance * share,
          .previous = sum.previous * share,
          .next = sum.next * share,
          .diagonal = sum.diagonal * share,
          .first = sum.first * share};
}

}  // namespace polyhead
