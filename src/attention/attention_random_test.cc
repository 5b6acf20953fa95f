// Shapes, masks, layouts and options drawn by RapidCheck, which shrinks what fails. The seed is
// fixed; RC_PARAMS="seed=N max_success=M" explores further.
#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include "testing/attention_check.h"
#include "testing/machine.h"
#include "testing/random_case.h"

namespace polyhead::oracle {
namespace {

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
