// No option is dead: each changes the answer of at least one input. And what the public function
// takes arrives: defaults, masks, outputs that are not wanted.
#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <polyhead/attention.h>
#include <polyhead/runtime.h>
#include "testing/attention_check.h"
#include "testing/compare.h"
#include "testing/elements.h"
#include "testing/score_mods.h"

namespace polyhead::oracle {
namespace {

AttentionCase base_case() {
  return {.batch = 2,
          .heads = 4,
          .kv_heads = 2,
          .q_len = 9,
          .kv_len = 12,
          .masks = {{.pattern = MaskPattern::kEmptyRows}, {.kind = Mask::Kind::kAdditive}}};
}

bool same_answer(const AttentionProblem& a, const AttentionProblem& b) {
  return compare_bits(run_attention_case(a.call()).out.view(),
                      run_attention_case(b.call()).out.view())
      .ok;
}

TEST(AttentionOptions, EachChangesTheAnswer) {
  const AttentionProblem base(base_case());
  ASSERT_TRUE(same_answer(base, AttentionProblem(base_case())));
  const std::pair<const char*, std::function<void(AttentionProblem&)>> changes[] = {
      {"scale", [](AttentionProblem& p) { p.spec.scale = 0.5; }},
      {"a mask less", [](AttentionProblem& p) { p.masks.erase(p.masks.begin()); }},
      {"causal", [](AttentionProblem& p) { p.masks.push_back(Mask::causal()); }},
      {"sense",
       [](AttentionProblem& p) {
         p.masks[0] = Mask::boolean(p.mask_tensors[0].view(), MaskSense::kIncluded);
       }},
      {"factor",
       [](AttentionProblem& p) { p.masks[1] = Mask::additive(p.mask_tensors[1].view(), 2); }},
      {"empty rows", [](AttentionProblem& p) { p.spec.empty_rows = EmptyRow::kNan; }},
      {"softcap", [](AttentionProblem& p) { p.spec.softcap = 2; }},
      {"sinks",
       [](AttentionProblem& p) {
         p.sinks = GuardedTensor(DType::kFloat32, {4});
         fill(p.sinks.view(), 0);
       }},
      {"window", [](AttentionProblem& p) { p.masks.push_back(Mask::window(2, 2)); }},
      {"offset", [](AttentionProblem& p) { p.masks.push_back(Mask::causal(2)); }},
      {"key lengths",
       [](AttentionProblem& p) {
         static constexpr int32_t kLengths[] = {12, 5};
         p.masks.push_back(Mask::key_lengths({kLengths, {2}}));
       }},
      {"alibi",
       [](AttentionProblem& p) {
         static constexpr float kSlopes[] = {1, 2, 3, 4};
         p.masks.push_back(Mask::alibi({kSlopes, {4}}));
       }},
      {"segments",
       [](AttentionProblem& p) {
         static constexpr int32_t kIds[] = {1, 2, 1, 1, 3, 1, 2, 1, 1, 1, 2, 3};
         p.masks.push_back(Mask::segments({kIds, {9}}, {kIds, {12}}));
       }},
      {"score_mod",
       [](AttentionProblem& p) {
         static const Slopes kSlopes;
         p.spec.score_mod = per_score(kSlopes);
       }},
      {"dropout", [](AttentionProblem& p) { p.spec.dropout_p = 0.1; }},
      {"extra columns",
       [](AttentionProblem& p) {
         p.extra_key = GuardedTensor(DType::kFloat32, {2, 1, 8});
         p.extra_value = GuardedTensor(DType::kFloat32, {2, 1, 8});
         fill(p.extra_key.view(), 0);
         fill(p.extra_value.view(), 0);
       }},
  };
  for (const auto& [name, change] : changes) {
    AttentionProblem changed(base_case());
    change(changed);
    EXPECT_FALSE(same_answer(base, changed)) << name;
  }
}

TEST(AttentionOptions, CausalAlignmentsDifferWhenLengthsDo) {
  AttentionCase spec = base_case();
  spec.masks = {{.kind = Mask::Kind::kCausal}};
  const AttentionProblem top_left(spec);
  spec.masks[0].align = CausalAlign::kBottomRight;
  EXPECT_FALSE(same_answer(top_left, AttentionProblem(spec)));
  spec.kv_len = spec.q_len;
  const AttentionProblem square(spec);
  spec.masks[0].align = CausalAlign::kTopLeft;
  EXPECT_TRUE(same_answer(square, AttentionProblem(spec)));
}

// The public call, against the truth of the call it stands for.
class AttentionForward : public ::testing::Test {
 protected:
  AttentionProblem problem_{{.batch = 2,
                             .heads = 4,
                             .kv_heads = 2,
                             .q_len = 9,
                             .kv_len = 12,
                             .masks = {{.dims = "hls"}},
                             .weights = WeightsMode::kAverage}};
  GuardedTensor out_{DType::kFloat32, {2, 4, 9, 8}};
  GuardedTensor lse_{DType::kFloat32, {2, 4, 9}};
  GuardedTensor weights_{DType::kFloat32, {2, 9, 12}};

  void forward(const AttentionOptions& options, const AttentionOutputs& outputs) const {
    attention_forward(problem_.query.view(), problem_.key.view(), problem_.value.view(), options,
                      outputs);
  }
};

TEST_F(AttentionForward, FillsAllOutputs) {
  forward({.masks = problem_.masks, .weights = WeightsMode::kAverage},
          {.out = out_.view(), .lse = lse_.view(), .weights = weights_.view()});
  AttentionRun run = run_attention_case(problem_.call());
  expect_same_bits(out_.view(), run.out.view(), "out");
  expect_same_bits(lse_.view(), run.lse.view(), "lse");
  expect_same_bits(weights_.view(), run.weights.view(), "weights");
  expect_truth(run, truth_of(problem_.call()), "options", "attention_forward");
}

TEST_F(AttentionForward, LeavesOutWhatIsNotWanted) {
  forward({.masks = problem_.masks}, {.out = out_.view()});
  expect_same_bits(out_.view(), run_attention_case(problem_.call()).out.view(), "out alone");
  EXPECT_TRUE(std::isnan(read(lse_.view(), {})));
}

TEST_F(AttentionForward, ReadsItsInputsOnly) {
  problem_.query.protect();
  problem_.key.protect();
  problem_.value.protect();
  problem_.mask_tensors[0].protect();
  for_each_kernel(problem_.call(), [&](const std::string& plan, const std::string& what) {
    EXPECT_TRUE(run_attention_case(problem_.call(), plan).intact()) << what;
  });
}

TEST_F(AttentionForward, RunsThePlanThatIsForced) {
  const std::vector<PlanInfo> table = attention_plans();
  ASSERT_FALSE(table.empty());
  for (const PlanInfo& plan : table) {
    EXPECT_GT(std::string(plan.when).size(), 10u) << plan.name;
  }
  AttentionRun reference = run_attention_case(problem_.call(), "reference");
  expect_truth(reference, truth_of(problem_.call()), "options", "reference");
  // In double and rounded once: not the bits of any float32 kernel.
  EXPECT_FALSE(
      compare_bits(reference.out.view(), run_attention_case(problem_.call()).out.view()).ok);
}

TEST_F(AttentionForward, TakesAsManyMasksAsATileHoldsAndMore) {
  AttentionCase spec = problem_.spec;
  for (size_t count : {7, 8, 9, 12}) {
    spec.masks.assign(count, {.dims = "ls", .density = 0.1});
    check_case(spec, "options");
  }
}

// Any byte but 0 is true, as numpy and torch store and read it.
TEST_F(AttentionForward, ReadsBooleansOfAnyByte) {
  const AttentionRun ones = run_attention_case(problem_.call());
  const TensorView mask = problem_.mask_tensors[0].view();
  Random random(3);
  for_each_index(mask.shape(), [&](const Index& at) {
    auto* byte = static_cast<unsigned char*>(mask.data()) + offset_of(mask, at);
    if (*byte != 0) *byte = static_cast<unsigned char>(1 + random.below(255));
  });
  expect_same_run(run_attention_case(problem_.call()), ones, "bytes of all values");
  const AttentionTruth truth = truth_of(problem_.call());
  for_each_kernel(problem_.call(), [&](const std::string& plan, const std::string& what) {
    expect_truth(run_attention_case(problem_.call(), plan), truth, "options", what);
  });
}

// Stride 0: one key and value for all batch items, one query for all heads.
TEST_F(AttentionForward, ReadsExpandedInputs) {
  AttentionCall call = problem_.call();
  const auto expanded = [](const ConstTensorView& view, int dim) {
    std::vector<int64_t> strides(view.strides().begin(), view.strides().end());
    strides[static_cast<size_t>(dim)] = 0;
    return ConstTensorView(view.data(), view.dtype(), view.shape(), strides);
  };
  call.query = expanded(call.query, 1);
  call.key = expanded(call.key, 0);
  call.value = expanded(call.value, 0);
  const AttentionTruth truth = truth_of(call);
  for_each_kernel(call, [&](const std::string& plan, const std::string& what) {
    expect_truth(run_attention_case(call, plan), truth, "options", what);
  });
}

}  // namespace
}  // namespace polyhead::oracle
