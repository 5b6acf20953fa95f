#include "verdict.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

namespace polyhead::cli {
namespace {

Comparison with_share(double share) {
  return {.count = 6,
          .finite = 6,
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

TEST(Verdict, SaysWhatIsNotFinite) {
  Verdict all_nan = verdict(0, 0.5);
  all_nan.out = {.count = 6, .both_nan = 6};
  EXPECT_EQ(all_nan.exit_code(), kBeyondBudget);
  const std::string text = verdict_text(all_nan, {});
  EXPECT_NE(text.find("out      WRONG  no finite element was compared"), text.npos) << text;
  EXPECT_NE(text.find("6 of 6 are NaN here and in the reference"), text.npos) << text;
  EXPECT_NE(text.find("NOT VERIFIED"), text.npos) << text;
  const auto json = nlohmann::json::parse(verdict_json(all_nan));
  EXPECT_EQ(json["within_budget"], false);
  EXPECT_EQ(json["out"]["nan_on_both_sides"], 6);
  EXPECT_EQ(json["out"]["finite"], 0);

  const double inf = std::numeric_limits<double>::infinity();
  Verdict overflow = verdict(inf, 0.5);
  overflow.out.overflowed = 2;
  overflow.out.got = -std::numeric_limits<double>::quiet_NaN();
  const std::string words = verdict_text(overflow, {});
  EXPECT_NE(words.find("2 of 6: the computation overflows float32"), words.npos) << words;
  EXPECT_EQ(words.find("-nan"), words.npos) << words;
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
