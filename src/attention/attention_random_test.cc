// Shapes, masks, layouts and options drawn by RapidCheck, which shrinks what fails. The seed is
// fixed; RC_PARAMS="seed=N max_success=M" explores further.
#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include "testing/attention_check.h"
#include "testing/machine.h"

namespace polyhead::oracle {
namespace {

int64_t between(int64_t least, int64_t most) { return *rc::gen::inRange(least, most + 1); }

template <class T>
T one_of(const std::vector<T>& choices) {
  return *rc::gen::elementOf(choices);
}

MaskSpec any_mask() {
  static const std::vector<const char*> dims = {"ls",  "1s",  "l1",   "11",   "hls",  "1ls", "h1s",
                                                "hl1", "111", "bhls", "b11s", "b1ls", "1hls"};
  MaskSpec mask;
  mask.kind =
      one_of<Mask::Kind>({Mask::Kind::kBoolean, Mask::Kind::kAdditive, Mask::Kind::kCausal});
  mask.dims = one_of(dims);
  mask.pattern = one_of<MaskPattern>(
      {MaskPattern::kRandom, MaskPattern::kPadding, MaskPattern::kEmptyRows, MaskPattern::kOneKey});
  mask.density = one_of<double>({0, 0.1, 0.5, 0.95, 1});
  mask.sense = one_of<MaskSense>({MaskSense::kExcluded, MaskSense::kIncluded});
  mask.align = one_of<CausalAlign>({CausalAlign::kTopLeft, CausalAlign::kBottomRight});
  mask.dtype = one_of<DType>({DType::kFloat32, DType::kFloat64, DType::kInt32, DType::kBool});
  mask.factor = one_of<double>({1, -0.5, 3});
  return mask;
}

AttentionCase any_case() {
  AttentionCase spec;
  spec.kv_heads = between(1, 3);
  spec.heads = spec.kv_heads * between(1, 3);
  spec.batch = between(1, 3);
  spec.q_len = between(0, 60);
  spec.kv_len = between(0, 100);
  spec.head_dim = between(1, 40);
  spec.v_head_dim = between(1, 40);
  spec.extra = between(0, 2);
  spec.dtype = one_of<DType>({DType::kFloat32, DType::kFloat64});
  spec.regime = one_of(std::vector<Regime>(std::begin(kRegimes), std::end(kRegimes)));
  spec.storage = one_of(std::vector<Storage>(std::begin(kStorages), std::end(kStorages)));
  spec.empty_rows = one_of<EmptyRow>({EmptyRow::kZero, EmptyRow::kNan});
  spec.weights =
      one_of<WeightsMode>({WeightsMode::kNone, WeightsMode::kAverage, WeightsMode::kPerHead});
  spec.dropout_p = one_of<double>({0, 0, 0.1, 0.5, 1});
  for (int64_t n = between(0, 3); n > 0; --n) spec.masks.push_back(any_mask());
  spec.seed = static_cast<uint64_t>(between(0, 1 << 20));
  return spec;
}

// GoogleTest failures inside `body`, so that RapidCheck sees them and shrinks.
template <class Body>
std::vector<std::string> failures_of(const Body& body) {
  ::testing::TestPartResultArray results;
  {
    const ::testing::ScopedFakeTestPartResultReporter reporter(
        ::testing::ScopedFakeTestPartResultReporter::INTERCEPT_ONLY_CURRENT_THREAD, &results);
    body();
  }
  std::vector<std::string> texts;
  for (int n = 0; n < results.size(); ++n) {
    if (results.GetTestPartResult(n).failed()) {
      texts.emplace_back(results.GetTestPartResult(n).message());
    }
  }
  return texts;
}

// The ratio to the naive loops' error is a statistic. Where one element carries most of the error
// (few keys, huge scores), luck exceeds it in one draw of about a hundred; a defect in each.
constexpr int kDraws = 5;

bool may_be_luck(const std::vector<std::string>& failures) {
  return std::all_of(failures.begin(), failures.end(), [](const std::string& text) {
    return text.find("ratio alarm") != std::string::npos;
  });
}

// What fails for these numbers, and, if that may be luck, for others in the same place too.
std::string failures_in_each_draw(AttentionCase spec) {
  std::vector<std::string> failures;
  for (int draw = 0; draw < kDraws; ++draw, ++spec.seed) {
    failures = failures_of([&] { check_case(spec, "random"); });
    if (failures.empty()) return "";
    if (!may_be_luck(failures)) break;
  }
  return failures.front();
}

class AttentionRandom : public ::testing::Test {
 protected:
  void SetUp() override { setenv("RC_PARAMS", "seed=20 max_success=300", /*overwrite=*/0); }
};

TEST_F(AttentionRandom, WithinBudgetOnEveryIsaAndPlan) {
  EXPECT_TRUE(rc::check([] {
    const std::string failures = failures_in_each_draw(any_case());
    if (!failures.empty()) RC_FAIL(failures);
  }));
}

TEST_F(AttentionRandom, TheSameBitsOnEveryIsaWithFma) {
  const std::vector<std::string> isas = isas_with_fma();
  if (isas.size() < 2) GTEST_SKIP() << "needs two instruction sets with fused multiply-add";
  EXPECT_TRUE(rc::check([&] {
    const AttentionProblem problem(any_case());
    std::vector<AttentionRun> runs;
    for (const std::string& name : isas) {
      const ForcedIsa forced(name);
      runs.push_back(run_attention_case(problem.call()));
    }
    const std::vector<std::string> failures =
        failures_of([&] { expect_same_run(runs[0], runs[1], problem.spec.describe()); });
    if (!failures.empty()) RC_FAIL(failures.front());
  }));
}

}  // namespace
}  // namespace polyhead::oracle
