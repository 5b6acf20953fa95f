// AVX2 and AVX-512 give each other's bits, in float32 and float64; the baseline keeps the accuracy
// only, which the sweep checks. NEON is held to them by tests/canonical.
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <polyhead/runtime.h>
#include "testing/attention_check.h"
#include "testing/compare.h"
#include "testing/machine.h"

namespace polyhead::oracle {
namespace {

class AttentionIsas : public ::testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    if (isas_with_fma().size() < 2) {
      GTEST_SKIP() << "this CPU has one instruction set with fused multiply-add, or none";
    }
  }

  static void expect_same_bits_on_all(const AttentionCase& spec) {
    const AttentionProblem problem(spec);
    const std::vector<std::string> isas = isas_with_fma();
    const auto run_on = [&](const std::string& name) {
      const ForcedIsa forced(name);
      EXPECT_EQ(isa(), name);
      return run_attention_case(problem.call());
    };
    const AttentionRun first = run_on(isas[0]);
    for (size_t n = 1; n < isas.size(); ++n) {
      expect_same_run(run_on(isas[n]), first,
                      isas[0] + " against " + isas[n] + ": " + spec.describe());
    }
  }
};
INSTANTIATE_TEST_SUITE_P(DTypes, AttentionIsas,
                         ::testing::Values(DType::kFloat32, DType::kFloat64));

TEST_P(AttentionIsas, EveryRegime) {
  for (Regime regime : kRegimes) {
    for (int64_t kv_len : {3, 200, 2100}) {
      for (uint64_t seed : {1, 2, 3}) {
        expect_same_bits_on_all({.heads = 3,
                                 .kv_heads = 3,
                                 .q_len = 53,
                                 .kv_len = kv_len,
                                 .head_dim = 24,
                                 .v_head_dim = 16,
                                 .dtype = GetParam(),
                                 .regime = regime,
                                 .weights = WeightsMode::kPerHead,
                                 .seed = seed});
      }
    }
  }
}

TEST_P(AttentionIsas, EveryQueryLength) {
  for (int64_t q_len = 1; q_len <= 100; ++q_len) {
    expect_same_bits_on_all({.q_len = q_len,
                             .kv_len = 37,
                             .head_dim = 12,
                             .v_head_dim = 9,
                             .dtype = GetParam(),
                             .weights = WeightsMode::kAverage});
  }
}

TEST_P(AttentionIsas, Masks) {
  for (const MaskSpec& mask :
       {MaskSpec{.kind = Mask::Kind::kCausal}, MaskSpec{.dims = "bhls"},
        MaskSpec{.kind = Mask::Kind::kAdditive, .dims = "hls"},
        MaskSpec{.dims = "b11s", .pattern = MaskPattern::kPadding},
        MaskSpec{.pattern = MaskPattern::kEmptyRows}, MaskSpec{.pattern = MaskPattern::kOneKey},
        MaskSpec{.kind = Mask::Kind::kAdditive, .dtype = DType::kInt32, .factor = -1e5}}) {
    for (EmptyRow empty_rows : {EmptyRow::kZero, EmptyRow::kNan}) {
      expect_same_bits_on_all({.batch = 2,
                               .heads = 4,
                               .kv_heads = 2,
                               .q_len = 60,
                               .kv_len = 150,
                               .extra = 2,
                               .dtype = GetParam(),
                               .regime = Regime::kPeaked,
                               .masks = {mask},
                               .empty_rows = empty_rows,
                               .weights = WeightsMode::kAverage});
    }
  }
}

TEST_P(AttentionIsas, HeadDims) {
  for (int64_t head_dim : {1, 3, 8, 20, 64, 96, 128, 256}) {
    expect_same_bits_on_all({.q_len = 50,
                             .kv_len = 70,
                             .head_dim = head_dim,
                             .v_head_dim = head_dim,
                             .dtype = GetParam()});
  }
}

}  // namespace
}  // namespace polyhead::oracle
