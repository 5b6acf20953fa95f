#include "explain_part.h"

#include <gtest/gtest.h>

namespace polyhead::cli {
namespace {

constexpr PageWidths kWidths = {.embed_dim = 384,
                                .kdim = 384,
                                .heads = 12,
                                .head_dim = 32,
                                .extra = 1,
                                .vdim = 384,
                                .pairs = 5};

TEST(ExplainPart, EverythingIsHeldWhereItFits) {
  const PageCounts all = {.heads = 12, .queries = 20, .keys = 20};
  const PageCounts part = counts_that_fit(kWidths, all, numbers_held(kWidths, all));
  EXPECT_EQ(part.heads, 12);
  EXPECT_EQ(part.queries, 20);
  EXPECT_EQ(part.keys, 20);
}

TEST(ExplainPart, WhatIsTooMuchIsCutAndFits) {
  for (const int64_t queries : {1, 100, 32'768}) {
    for (const int64_t keys : {0, 1, 100, 32'768}) {
      const PageCounts part = counts_that_fit(kWidths, {12, queries, keys}, kMostPageNumbers);
      EXPECT_LE(numbers_held(kWidths, part), kMostPageNumbers) << queries << " " << keys;
      EXPECT_GE(part.queries, 1);
      EXPECT_EQ(part.keys > 0, keys > 0);
      EXPECT_EQ(part.heads, 12) << "queries and keys are cut first";
    }
  }
}

TEST(ExplainPart, ManyHeadsAreCutWhenFewPositionsAreLeft) {
  const PageWidths wide = {.embed_dim = 8192, .kdim = 8192, .heads = 128, .head_dim = 64};
  const PageCounts part = counts_that_fit(wide, {128, 500, 500}, kMostPageNumbers);
  EXPECT_LE(numbers_held(wide, part), kMostPageNumbers);
  EXPECT_LT(part.heads, 128);
  EXPECT_GE(part.heads, 1);
}

TEST(ExplainPart, OneOfEachIsTheLeast) {
  const PageCounts part = counts_that_fit(kWidths, {12, 500, 500}, 1);
  EXPECT_EQ(part.heads, 1);
  EXPECT_EQ(part.queries, 1);
  EXPECT_EQ(part.keys, 1);
}

}  // namespace
}  // namespace polyhead::cli
