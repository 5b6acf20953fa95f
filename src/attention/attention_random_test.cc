// All options of the op together, drawn by RapidCheck, which shrinks what fails: forward and
// backward against the double reference on every instruction set and plan, and the same bits from
// those with fused multiply-add and from any number of threads.
//
// The seed is fixed; RC_PARAMS="seed=N max_success=M" explores further. A failure says its case in
// full, and the RC_PARAMS that draw it again.
#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include "testing/attention_check.h"
#include "testing/backward_check.h"
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

// What fails for these numbers, and, if that may be luck, for others in the same place too. Where
// scores are few, or a softcap saturates them to few, naive loops may be exact each time.
std::string failures_in_each_draw(AttentionCase spec) {
  const int draws = scores_are_many(spec) && spec.softcap == 0 ? kDraws : 1;
  std::string first;
  for (int draw = 0; draw < draws; ++draw, ++spec.seed) {
    const std::vector<std::string> failures = failures_of([&] {
      check_case(spec, "random");
      check_backward_case(spec, "backward_random");
    });
    if (failures.empty()) return "";
    first = failures.front();
    if (!may_be_luck(failures)) return first;
  }
  return draws > 1 ? first : "";
}

TEST(AttentionRandom, ForwardAndBackwardWithinBudgetAndTheSameBits) {
  setenv("RC_PARAMS", "seed=20 max_success=2000", /*overwrite=*/0);
  EXPECT_TRUE(rc::check([] {
    const std::string failures = failures_in_each_draw(any_case());
    if (!failures.empty()) RC_FAIL(failures);
  }));
}

}  // namespace
}  // namespace polyhead::oracle
