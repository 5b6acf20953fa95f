#include "report/head_stats.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <limits>

#include <gtest/gtest.h>

namespace polyhead {
namespace {

Tensor matrix(int64_t rows, int64_t columns, std::initializer_list<double> values) {
  Tensor out(DType::kFloat64, {rows, columns});
  std::copy(values.begin(), values.end(), out.data_as<double>());
  return out;
}

TEST(HeadStats, PreviousTokenHead) {
  const HeadStats stats = head_stats(matrix(3, 3, {1, 0, 0, 1, 0, 0, 0, 1, 0}));
  EXPECT_DOUBLE_EQ(stats.entropy_bits, 0);
  EXPECT_DOUBLE_EQ(stats.previous, 2.0 / 3);
  EXPECT_DOUBLE_EQ(stats.diagonal, 1.0 / 3);
  EXPECT_DOUBLE_EQ(stats.first, 2.0 / 3);
  EXPECT_DOUBLE_EQ(stats.next, 0);
  EXPECT_DOUBLE_EQ(stats.mean_distance, 2.0 / 3);
}

TEST(HeadStats, EvenHeadHasTheEntropyOfItsWidth) {
  const HeadStats stats = head_stats(matrix(1, 4, {0.25, 0.25, 0.25, 0.25}));
  EXPECT_DOUBLE_EQ(stats.entropy_bits, 2);
  EXPECT_DOUBLE_EQ(stats.mean_distance, 1.5);
  EXPECT_DOUBLE_EQ(stats.next, 0.25);
}

TEST(HeadStats, EmptyAndNanRowsDoNotCount) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const HeadStats stats = head_stats(matrix(3, 2, {0, 0, nan, nan, 0, 1}));
  EXPECT_DOUBLE_EQ(stats.previous, 1);
  const Tensor blanks[] = {matrix(0, 2, {}), matrix(1, 2, {0, 0}), matrix(2, 2, {0, 0, nan, nan})};
  for (const Tensor& blank : blanks) {
    const HeadStats none = head_stats(blank);
    EXPECT_TRUE(std::isnan(none.entropy_bits) && std::isnan(none.first)) << blank.shape_string();
  }
}

TEST(HeadStats, ReadsFloat32ThroughStrides) {
  Tensor weights(DType::kFloat32, {2, 2});
  weights.data_as<float>()[1] = 1;  // row 0 looks at 1; row 1 is empty
  EXPECT_DOUBLE_EQ(head_stats(weights).next, 1);
  EXPECT_DOUBLE_EQ(head_stats(weights.view().transposed(0, 1)).previous, 1);
}

}  // namespace
}  // namespace polyhead
