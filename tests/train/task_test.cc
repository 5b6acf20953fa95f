// What is asked for must follow from the row, and from nothing but the row.
#include "task.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "heads.h"

namespace train {
namespace {

using polyhead::DType;
using polyhead::Tensor;

constexpr int64_t kRows = 300;

Batch drawn(const Task& task, uint64_t seed = 1) {
  polyhead::nn::Random random{.seed = seed};
  return draw_batch(task, kRows, &random);
}

std::vector<int64_t> row_of(const Tensor& tensor, int64_t row) {
  const int64_t* begin = tensor.data_as<int64_t>() + row * tensor.size(1);
  return {begin, begin + tensor.size(1)};
}

TEST(Task, ThePieceComesTwiceAndAllElseIsDifferent) {
  const Batch batch = drawn({.vocabulary = 40, .length = 32});
  for (int64_t r = 0; r < kRows; ++r) {
    const auto [begin, period] = batch.repeats[static_cast<size_t>(r)];
    const std::vector<int64_t> tokens = row_of(batch.tokens, r);
    ASSERT_EQ(begin + 2 * period, 32);
    const auto second = tokens.begin() + begin + period;
    EXPECT_EQ(std::set<int64_t>(tokens.begin(), second).size(),
              static_cast<size_t>(begin + period));
    EXPECT_TRUE(std::equal(second, tokens.end(), tokens.begin() + begin));
    EXPECT_GE(*std::ranges::min_element(tokens), 0);
    EXPECT_LT(*std::ranges::max_element(tokens), 40);
  }
}

TEST(Task, TheTargetIsTheTokenThatFollowedBefore) {
  const Batch batch = drawn({.vocabulary = 40, .length = 32});
  for (int64_t r = 0; r < kRows; ++r) {
    const std::vector<int64_t> tokens = row_of(batch.tokens, r), targets = row_of(batch.targets, r);
    std::map<int64_t, int64_t> followed_by;
    for (size_t i = 0; i + 1 < tokens.size(); ++i) {
      const auto known = followed_by.find(tokens[i]);
      EXPECT_EQ(targets[i], known == followed_by.end() ? kNoTarget : known->second)
          << r << " " << i;
      followed_by[tokens[i]] = tokens[i + 1];
    }
    EXPECT_EQ(targets.back(), kNoTarget);
  }
}

// Else a head could look a fixed way back, or at a fixed position.
TEST(Task, NoPositionSaysWhereToLook) {
  const Batch batch = drawn({.vocabulary = 40, .length = 32});
  std::map<int64_t, int> periods;
  for (const Repeat& repeat : batch.repeats) ++periods[repeat.period];
  EXPECT_EQ(periods.begin()->first, 8);
  EXPECT_EQ(periods.rbegin()->first, 16);
  EXPECT_EQ(periods.size(), 9u);
  for (const auto& [period, count] : periods) EXPECT_LT(count, kRows / 4) << period;
}

TEST(Task, FollowsFromTheSeedAlone) {
  const Task task{.vocabulary = 12, .length = 8};
  EXPECT_EQ(row_of(drawn(task).tokens, 7), row_of(drawn(task).tokens, 7));
  EXPECT_NE(row_of(drawn(task).tokens, 7), row_of(drawn(task, 2).tokens, 7));
}

// A head that always looks `shift` tokens after the query's first occurrence.
Heads looking(int64_t shift) {
  Heads heads{.batch = drawn({.vocabulary = 40, .length = 32}), .weights = {}};
  Tensor weights(DType::kFloat32, {kRows, 2, 32, 32});  // head 0 looks at nothing
  for (int64_t r = 0; r < kRows; ++r) {
    const auto [begin, period] = heads.batch.repeats[static_cast<size_t>(r)];
    for (int64_t i = 0; i < period; ++i) {
      const int64_t query = begin + period + i, key = begin + i + shift;
      weights.data_as<float>()[((r * 2 + 1) * 32 + query) * 32 + key] = 0.75F;
    }
  }
  heads.weights.push_back(std::move(weights));
  return heads;
}

TEST(InductionScore, IsTheWeightOnTheTokenAfterTheFirstOccurrence) {
  const std::vector<std::vector<double>> expected = {{0, 0.75}}, nothing = {{0, 0}};
  EXPECT_EQ(induction_scores(looking(1)), expected);
  EXPECT_EQ(induction_scores(looking(0)), nothing);
  EXPECT_EQ(induction_scores(looking(2)), nothing);
}

}  // namespace
}  // namespace train
