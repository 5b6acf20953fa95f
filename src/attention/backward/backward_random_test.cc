// Gradients of shapes, masks, layouts and options drawn by RapidCheck. The seed is fixed;
// RC_PARAMS="seed=N max_success=M" explores further.
#include <cstdlib>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include "testing/backward_check.h"
#include "testing/machine.h"
#include "testing/random_case.h"

namespace polyhead::oracle {
namespace {

// Some have several chunks of keys.
AttentionCase any_backward_case() {
  AttentionCase spec = any_case();
  if (between(0, 9) == 0) {
    spec.kv_len += between(400, 1000);
    spec.q_len = between(0, 10);
  }
  spec.with_rest = between(0, 1) == 0;
  return spec;
}

class BackwardRandom : public ::testing::Test {
 protected:
  void SetUp() override { setenv("RC_PARAMS", "seed=20 max_success=500", /*overwrite=*/0); }
};

TEST_F(BackwardRandom, WithinBudgetAndTheSameBitsOnEveryIsaAndPlan) {
  EXPECT_TRUE(rc::check([] {
    const AttentionCase spec = any_backward_case();
    const auto failures = failures_of([&] { check_backward_case(spec, "backward_random"); });
    if (!failures.empty()) RC_FAIL(failures.front());
  }));
}

TEST_F(BackwardRandom, TheSameBitsOnAnyNumberOfThreads) {
  EXPECT_TRUE(rc::check([] {
    const BackwardProblem problem(any_backward_case());
    const Threads one(1);
    const BackwardRun alone = run_backward_case(problem);
    const Threads several(static_cast<int>(between(2, 9)));
    const auto failures = failures_of([&] {
      expect_same_gradients(run_backward_case(problem), alone, problem.problem.spec.describe());
    });
    if (!failures.empty()) RC_FAIL(failures.front());
  }));
}

}  // namespace
}  // namespace polyhead::oracle
