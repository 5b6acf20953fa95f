// Tiles of few query rows have a kernel of their own: the same row gives the same bits alone, in a
// rest of few rows behind full tiles, and among as many rows as a tile has.
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include "testing/attention_check.h"
#include "testing/compare.h"
#include "testing/elements.h"
#include "testing/machine.h"

namespace polyhead::oracle {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr auto kCausal = Mask::Kind::kCausal;
constexpr auto kAdditive = Mask::Kind::kAdditive;

// 60 rows leave no tile of few: 48 + 12, or whole tiles of 24, 12 or 6. The first n leave 1 to 4.
constexpr int64_t kAllRows = 60;
constexpr int64_t kFirstRows[] = {1, 2, 3, 4, 5, 49, 50, 51, 52};

class AttentionRow : public ::testing::TestWithParam<DType> {
 protected:
  AttentionCase usual() const {
    return {.heads = 2,
            .kv_heads = 1,
            .q_len = kAllRows,
            .kv_len = 37,
            .head_dim = 20,
            .v_head_dim = 24,
            .dtype = GetParam(),
            .regime = Regime::kPeaked,
            .weights = WeightsMode::kPerHead};
  }

  // The first n queries by themselves, against the same of all 60.
  static void expect_same_rows(const AttentionProblem& problem) {
    for_each_isa([&](const std::string& isa) {
      const AttentionRun all = run_attention_case(problem.call());
      for (int64_t n : kFirstRows) {
        const std::vector<Mask> masks = narrowed(problem.masks, 2, 0, n);
        AttentionCall call = problem.call();
        call.query = call.query.narrow(2, 0, n);
        call.masks = masks;
        const AttentionRun few = run_attention_case(call, "", problem.spec.storage);
        const std::string what =
            isa + ", the first " + std::to_string(n) + ": " + problem.spec.describe();
        expect_same_bits(few.out.view(), all.out.view().narrow(2, 0, n), what);
        expect_same_bits(few.lse.view(), all.lse.view().narrow(2, 0, n), what);
        if (!few.weights.defined()) continue;
        const int dim = few.weights.view().rank() - 2;
        expect_same_bits(few.weights.view(), all.weights.view().narrow(dim, 0, n), what);
        EXPECT_TRUE(few.intact()) << what;
      }
    });
  }
  static void expect_same_rows(const AttentionCase& spec) {
    expect_same_rows(AttentionProblem(spec));
  }
};
INSTANTIATE_TEST_SUITE_P(DTypes, AttentionRow, ::testing::Values(DType::kFloat32, DType::kFloat64));

TEST_P(AttentionRow, HeadDims) {
  AttentionCase spec = usual();
  for (spec.head_dim = 1; spec.head_dim <= 130; ++spec.head_dim) {
    spec.v_head_dim = 131 - spec.head_dim;
    expect_same_rows(spec);
  }
  spec.v_head_dim = 0;
  expect_same_rows(spec);
  spec.head_dim = 0;
  spec.v_head_dim = 257;
  expect_same_rows(spec);
}

TEST_P(AttentionRow, KeyLengths) {
  AttentionCase plain = usual(), causal = usual(), masked = usual();
  plain.weights = WeightsMode::kNone;
  causal.masks = {{.kind = kCausal}};
  masked.masks = {{.dims = "ls"}};
  masked.extra = 2;
  masked.weights = WeightsMode::kAverage;
  for (int64_t kv_len : {0,  1,  2,  3,  4,  5,   7,   8,   9,    15,   16,   17,
                         24, 31, 32, 33, 63, 255, 256, 257, 1023, 1024, 1025, 3000}) {
    for (AttentionCase spec : {plain, causal, masked}) {
      spec.kv_len = kv_len;
      expect_same_rows(spec);
    }
  }
}

TEST_P(AttentionRow, Regimes) {
  for (Regime regime : kRegimes) {
    for (int64_t kv_len : {5, 200, 1100}) {
      AttentionCase spec = usual();
      spec.regime = regime;
      spec.kv_len = kv_len;
      spec.masks = {{.kind = kAdditive, .dims = "ls", .density = 0.1}};
      expect_same_rows(spec);
      spec.masks = {};
      expect_same_rows(spec);
    }
  }
}

TEST_P(AttentionRow, Masks) {
  const MaskSpec padding = {.dims = "b11s", .pattern = MaskPattern::kPadding};
  const MaskSpec empty_rows = {.pattern = MaskPattern::kEmptyRows};
  const MaskSpec one_key = {.pattern = MaskPattern::kOneKey};
  const MaskSpec included = {.dims = "hls", .sense = MaskSense::kIncluded};
  const MaskSpec none_seen = {.dims = "11", .density = 1};
  const MaskSpec same = {.kind = kAdditive, .dims = "bhls", .dtype = GetParam(), .factor = 0.3};
  const MaskSpec ints = {.kind = kAdditive, .dims = "h1s", .dtype = DType::kInt32, .factor = -0.7};
  const MaskSpec bools = {.kind = kAdditive, .dtype = DType::kBool, .factor = -1e5};
  const MaskSpec longs = {.kind = kAdditive, .dims = "l1", .dtype = DType::kInt64};
  const MaskSpec doubles = {.kind = kAdditive, .dims = "1s", .dtype = DType::kFloat64};
  const MaskSpec causal = {.kind = kCausal};
  for (const std::vector<MaskSpec>& masks :
       {std::vector{padding}, std::vector{empty_rows}, std::vector{one_key}, std::vector{included},
        std::vector{none_seen}, std::vector{same}, std::vector{ints}, std::vector{bools},
        std::vector{longs}, std::vector{doubles}, std::vector{causal, padding},
        std::vector{same, included, doubles, causal, padding}}) {
    for (EmptyRow rows : {EmptyRow::kZero, EmptyRow::kNan}) {
      for (WeightsMode weights : {WeightsMode::kPerHead, WeightsMode::kAverage}) {
        AttentionCase spec = usual();
        spec.batch = 2;
        spec.kv_len = 300;
        spec.masks = masks;
        spec.empty_rows = rows;
        spec.weights = weights;
        expect_same_rows(spec);
        spec.extra = 1;
        expect_same_rows(spec);
      }
    }
  }
}

TEST_P(AttentionRow, Storages) {
  for (Storage storage : kStorages) {
    for (int64_t head_dim : {5, 16, 64}) {
      AttentionCase spec = usual();
      spec.storage = storage;
      spec.head_dim = head_dim;
      spec.v_head_dim = head_dim;
      spec.kv_len = 270;
      spec.extra = 8;
      spec.masks = {{.dims = "bhls"}, {.kind = kAdditive, .dims = "hls", .dtype = GetParam()}};
      expect_same_rows(spec);
    }
  }
}

// Numbers that are none, seen and hidden; and scores that overflow to -inf without a mask, whose
// values count all the same.
TEST_P(AttentionRow, NotFinite) {
  for (double poison : {kNan, kInf, -kInf}) {
    for (int64_t key : {0, 3, 20, 290}) {
      for (const std::vector<MaskSpec>& masks :
           {std::vector<MaskSpec>{}, {{.dims = "ls"}, {.kind = kCausal}}}) {
        AttentionCase spec = usual();
        spec.kv_len = 300;
        spec.masks = masks;
        const AttentionProblem of_key(spec), of_value(spec);
        fill(of_key.key.view().narrow(2, key, 1), poison);
        expect_same_rows(of_key);
        fill(of_value.value.view().narrow(2, key, 1), poison);
        expect_same_rows(of_value);
      }
    }
  }
}

TEST_P(AttentionRow, Dropout) {
  for (double p : {0.2, 1.0}) {
    for (int64_t kv_len : {1, 9, 300, 1100}) {
      for (WeightsMode weights : {WeightsMode::kNone, WeightsMode::kAverage}) {
        AttentionCase spec = usual();
        spec.kv_len = kv_len;
        spec.dropout_p = p;
        spec.extra = 2;
        spec.weights = weights;
        expect_same_rows(spec);
        spec.masks = {{.dims = "ls"}, {.kind = kCausal}};
        const AttentionProblem problem(spec);
        fill(problem.value.view().narrow(2, kv_len / 2, 1), kNan);
        expect_same_rows(problem);
      }
    }
  }
}

// Every key hidden is NaN, and so is its value.
TEST_P(AttentionRow, PoisonUnderMasks) {
  for (int64_t kv_len : {9, 40, 700}) {
    AttentionCase spec = usual();
    spec.kv_len = kv_len;
    spec.masks = {{.dims = "b11s", .density = 0.5}, {.dims = "ls"}};
    const AttentionProblem clean(spec), poisoned(spec);
    const ConstTensorView mask = clean.mask_tensors[0].view();
    for (int64_t j = 0; j < kv_len; ++j) {
      if (!mask.data_as<bool>()[j]) continue;
      fill(poisoned.key.view().narrow(2, j, 1), kNan);
      fill(poisoned.value.view().narrow(2, j, 1), kNan);
    }
    expect_same_rows(poisoned);
    for_each_isa([&](const std::string& isa) {
      expect_same_run(run_attention_case(poisoned.call()), run_attention_case(clean.call()), isa);
    });
  }
}

}  // namespace
}  // namespace polyhead::oracle
