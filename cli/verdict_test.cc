#include "verdict.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

namespace polyhead::cli {
namespace {

Comparison with_share(double share) {
  return {.count = 6,
          .worst_error = share / 8,
          .worst_share = share,
          .where = {0, 1},
          .got = 1.5,
          .want = 1,
          .budget = 0.125};
}

Verdict verdict(double out_share, double weights_share) {
  return {.module = "nn.MultiheadAttention",
          .understood = "batch 1",
          .dtype = "float32",
          .isa = "avx2",
          .out = with_share(out_share),
          .weights = with_share(weights_share)};
}

TEST(Verdict, OneThatIsBeyondIsEnough) {
  EXPECT_EQ(verdict(0.5, 1).exit_code(), kOk);
  EXPECT_EQ(verdict(1.5, 0.5).exit_code(), kBeyondBudget);
  EXPECT_EQ(verdict(0.5, 1.5).exit_code(), kBeyondBudget);
  EXPECT_EQ(verdict(std::numeric_limits<double>::quiet_NaN(), 0).exit_code(), kBeyondBudget);
  Verdict without_weights = verdict(0.5, 1.5);
  without_weights.weights.reset();
  EXPECT_EQ(without_weights.exit_code(), kOk);
}

TEST(Verdict, AsText) {
  const std::string text = verdict_text(verdict(0.5, 4), {});
  EXPECT_EQ(text,
            "nn.MultiheadAttention: batch 1, float32, avx2\n"
            "  out      ok     worst error 0.0625, 50 % of the budget\n"
            "           at [0, 1]: got 1.5, reference 1, budget 0.125\n"
            "  weights  WRONG  worst error 0.5, 400 % of the budget\n"
            "           at [0, 1]: got 1.5, reference 1, budget 0.125\n"
            "BEYOND the error budget\n");
}

TEST(Verdict, AsJson) {
  const double inf = std::numeric_limits<double>::infinity();
  const auto json = nlohmann::json::parse(verdict_json(verdict(0.5, inf)));
  EXPECT_EQ(json["within_budget"], false);
  EXPECT_EQ(json["out"]["within_budget"], true);
  EXPECT_EQ(json["out"]["share_of_budget"], 0.5);
  EXPECT_EQ(json["out"]["where"], nlohmann::json({0, 1}));
  EXPECT_TRUE(json["weights"]["share_of_budget"].is_null());
}

}  // namespace
}  // namespace polyhead::cli
