#include "explain_check.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace polyhead::cli {
namespace {

// Where element n of a page's matrix stands in the expected one, which holds everything.
size_t place_in(const Numbers& all, const PageMatrix& held, const nlohmann::json& meta,
                const std::string& name, size_t n) {
  const auto first = [&](const char* what) { return meta[what]["first"].get<int64_t>(); };
  const auto index = static_cast<int64_t>(n);
  const int64_t columns = held.shape.back(), j = index % columns, i = index / columns;
  if (held.shape.size() == 3 && name.rfind("extra", 0) != 0) {  // [heads, queries, columns]
    const int64_t rows = held.shape[1], keys = meta["keys"]["count"].get<int64_t>();
    const int64_t kv_len = meta["keys"]["of"].get<int64_t>();
    const int64_t row = i / rows * all.shape[1] + first("queries") + i % rows;
    const int64_t column = j < keys ? first("keys") + j : kv_len + j - keys;
    return static_cast<size_t>(row * all.shape[2] + column);
  }
  if (name == "seen") return static_cast<size_t>(i * all.shape[1] + first("queries") + j);
  int64_t from = 0;
  if (name == "key" || name == "value" || name == "k" || name == "v") from = first("keys");
  if (name == "query" || name == "q" || name == "heads" || name == "out") from = first("queries");
  return static_cast<size_t>((from + i) * (held.shape.size() == 1 ? columns : all.shape.back()) +
                             j);
}

}  // namespace

bool within(long double got, const Bounded& want, long double more) {
  if (std::isnan(want.value)) return std::isnan(got);
  if (std::isinf(want.value)) return got == want.value;
  return std::abs(got - want.value) <= want.error + more;
}

void expect_page(const Page& page, const Expected& expected) {
  for (const auto& [name, numbers] : expected) {
    if (numbers.numbers.empty()) continue;
    ASSERT_TRUE(page.matrices.contains(name)) << name;
    const PageMatrix& held = page.matrices.at(name);
    ASSERT_EQ(held.shape.size(), numbers.shape.size()) << name;
    ASSERT_FALSE(held.numbers.empty()) << name;
    for (size_t n = 0; n < held.numbers.size(); ++n) {
      const Bounded& want = numbers.numbers.at(place_in(numbers, held, page.meta, name, n));
      ASSERT_TRUE(within(held.numbers[n], want))
          << name << "[" << n << "] is " << held.numbers[n] << "; must be "
          << static_cast<double>(want.value) << " to within " << static_cast<double>(want.error);
    }
  }
}

void expect_fast_path(const Page& page, const Numbers& fast) {
  const std::vector<double>& held = page.matrices.at("fast").numbers;
  const std::vector<double>& out = page.matrices.at("out").numbers;
  const auto first = page.meta["queries"]["first"].get<int64_t>();
  ASSERT_EQ(held.size(), out.size());
  double largest = 0;
  for (size_t n = 0; n < held.size(); ++n) {
    const Bounded& want = fast.numbers.at(n + static_cast<size_t>(first * fast.shape[1]));
    ASSERT_TRUE(within(held[n], want)) << n;
    if (!std::isnan(held[n])) largest = std::max(largest, std::abs(held[n] - out[n]));
  }
  const bool whole = page.meta["queries"]["count"] == page.meta["queries"]["of"];
  if (whole) {
    EXPECT_EQ(page.difference, largest);
  }
  EXPECT_GE(page.difference, largest);
}

}  // namespace polyhead::cli
