// Every gradient against the double reference, over all options of both classes.
#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include "module/training/training_case.h"
#include "testing/compare.h"
#include "testing/tolerance.h"

namespace polyhead {
namespace {

using oracle::MaskKind;
using oracle::random_tensor;
using oracle::Sharing;
using oracle::TrainingProblem;
using oracle::TrainingResult;
using oracle::TrainingSpec;
using oracle::Zeros;

// All the reference has, by the names of TrainingResult::gradients().
std::vector<std::pair<std::string, GradientReference>> truths(const ModuleBackwardReference& r) {
  std::vector<std::pair<std::string, GradientReference>> all = {
      {"d_query", r.d_query}, {"d_key", r.d_key}, {"d_value", r.d_value}};
  if (r.d_attn_mask.value.defined()) all.emplace_back("d_attn_mask", r.d_attn_mask);
  if (r.d_key_padding_mask.value.defined()) {
    all.emplace_back("d_key_padding_mask", r.d_key_padding_mask);
  }
  all.insert(all.end(), r.parameters.begin(), r.parameters.end());
  return all;
}

// In a random case a gradient may cancel in all but its rounding: each query sees one key, a mask
// broadcasts over the keys, a bias shifts all scores of a row.
void expect_gradients(const std::vector<std::pair<std::string, ConstTensorView>>& got,
                      const ModuleBackwardReference& reference, const std::string& suite,
                      const std::string& what) {
  const auto wanted = truths(reference);
  ASSERT_EQ(got.size(), wanted.size());
  for (size_t i = 0; i < got.size(); ++i) {
    const auto& [name, truth] = wanted[i];
    ASSERT_EQ(got[i].first, name);
    // Sums of d_out: nothing else uses so much of its budget, in float32.
    const bool exact = suite.ends_with("32") && (name == "out_proj.bias" || name == "fc_out.bias");
    const char* part = name.starts_with("d_") ? ".inputs" : exact ? ".out_bias" : ".parameters";
    const bool row_shift = name.find("bias") != std::string::npos || i > 2;
    const auto zeros = row_shift || suite.find("random") != std::string::npos ? Zeros::kPlausible
                                                                              : Zeros::kDistrusted;
    oracle::expect_within_budget(got[i].second, truth.value, truth.budget,
                                 {suite + part, what + ": " + name, zeros});
  }
}

void expect_reference(const TrainingSpec& spec, const std::string& suite) {
  const TrainingProblem problem(spec);
  const TrainingResult got = problem.run();
  expect_gradients(got.gradients(),
                   module_backward_reference(problem.module, problem.reference_step()),
                   suite + "." + dtype_name(spec.dtype), spec.describe());
}

class ModuleGradient : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(DTypes, ModuleGradient,
                         ::testing::Values(DType::kFloat32, DType::kFloat64));

TEST_P(ModuleGradient, RandomConfigurationsAreTheReference) {
  for (uint64_t seed = 0; seed < 600; ++seed) {
    expect_reference(oracle::random_training_spec(seed, GetParam()), "module.gradient.random");
    if (HasFailure()) return;
  }
}

// Over the edges of tiles, chunks and passes; peaked scores, flat ones, many heads, one.
TEST_P(ModuleGradient, LargerProblemsAreTheReference) {
  const TrainingSpec specs[] = {
      {.batch = 1, .q_len = 70, .kv_len = 530, .heads = 2, .head_dim = 16, .causal = true},
      {.batch = 3, .q_len = 49, .kv_len = 49, .heads = 3, .head_dim = 20, .sharing = Sharing::kAll},
      {.batch = 2,
       .q_len = 40,
       .kv_len = 33,
       .heads = 2,
       .head_dim = 64,
       .bias_kv = true,
       .attn_mask = MaskKind::kFloat,
       .weights = WeightsMode::kAverage},
      {.batch = 9,
       .q_len = 65,
       .kv_len = 65,
       .heads = 4,
       .head_dim = 8,
       .sharing = Sharing::kAll,
       .padding = MaskKind::kBool,
       .dropout = 0.2},
      {.batch = 1, .q_len = 30, .kv_len = 40, .heads = 1, .head_dim = 48, .deviation = 3},
      {.batch = 2, .q_len = 60, .kv_len = 60, .heads = 6, .head_dim = 16, .kv_heads = 2},
      {.batch = 2,
       .q_len = 33,
       .kv_len = 70,
       .heads = 4,
       .head_dim = 24,
       .kv_heads = 1,
       .embed = 50,
       .bias_kv = true,
       .zero_attn = true,
       .sharing = Sharing::kKeyValue,
       .dropout = 0.1},
      {.batch = 2,
       .q_len = 70,
       .kv_len = 70,
       .heads = 4,
       .head_dim = 32,
       .kv_heads = 2,
       .qk_norm = true,
       .rope = {.pairs = RopePairs::kHalves},
       .sharing = Sharing::kAll},
      {.batch = 1,
       .q_len = 40,
       .kv_len = 97,
       .heads = 2,
       .head_dim = 20,
       .rope = {.pairs = RopePairs::kInterleaved, .base = 500000, .rotary_dim = 12},
       .query_position = 57,
       .sharing = Sharing::kKeyValue}};
  for (TrainingSpec spec : specs) {
    spec.dtype = GetParam();
    expect_reference(spec, "module.gradient.larger");
  }
}

// The same view for several inputs receives the sum, be it one product or several.
TEST_P(ModuleGradient, OneViewForSeveralInputsReceivesTheirSum) {
  const TrainingSpec specs[] = {{.sharing = Sharing::kAll},
                                {.q_len = 7, .kdim = 8, .vdim = 3},
                                {.q_len = 7},
                                {.layout = Layout::kSequenceFirst, .sharing = Sharing::kKeyValue}};
  const std::vector<std::vector<int>> groups = {{0, 1, 2}, {0, 1}, {0, 2}, {1, 2}};
  for (size_t n = 0; n < 4; ++n) {
    TrainingSpec spec = specs[n];
    spec.dtype = GetParam();
    spec.kv_len = 7;
    const TrainingProblem problem(spec);
    TrainingContext context;
    TrainingResult result;
    InputGradients to = problem.targets(&result);
    TensorView* views[] = {&to.d_query, &to.d_key, &to.d_value};
    const ModuleBackwardReference truth =
        module_backward_reference(problem.module, problem.reference_step());
    const GradientReference* parts[] = {&truth.d_query, &truth.d_key, &truth.d_value};
    const auto first = static_cast<size_t>(groups[n].front());
    GradientReference sum = *parts[first];
    for (const int i : groups[n]) {
      const auto part = static_cast<size_t>(i);
      if (part == first) continue;
      *views[part] = *views[first];
      for (int64_t e = 0; e < sum.value.numel(); ++e) {
        sum.value.data_as<double>()[e] += parts[part]->value.data_as<double>()[e];
        sum.budget.data_as<double>()[e] += parts[part]->budget.data_as<double>()[e];
      }
    }
    problem.module.forward(problem.query, problem.key_view(), problem.value_view(), {}, &context);
    problem.module.backward(context, problem.cotangents(), to);
    oracle::expect_within_budget(
        *views[first], sum.value, sum.budget,
        {std::string("module.gradient.sum.") + dtype_name(GetParam()), spec.describe()});
  }
}

struct ScratchCase {
  HeadWidth width;
  std::vector<int64_t> mask;  // its shape; empty: none
  WeightsMode weights;
  bool self;
};

TEST_P(ModuleGradient, FromScratchIsTheReference) {
  const ScratchCase cases[] = {{HeadWidth::kSplit, {}, WeightsMode::kNone, true},
                               {HeadWidth::kSplit, {7}, WeightsMode::kAverage, false},
                               {HeadWidth::kFull, {5, 1}, WeightsMode::kPerHead, false},
                               {HeadWidth::kFull, {3, 5, 7}, WeightsMode::kNone, false},
                               {HeadWidth::kSplit, {2, 1, 1, 7}, WeightsMode::kNone, false},
                               {HeadWidth::kFull, {2, 3, 5, 5}, WeightsMode::kAverage, true}};
  for (const ScratchCase& c : cases) {
    const DType dtype = GetParam();
    FromScratchMultiHeadAttention module(6, 3, c.width, 3, dtype);
    oracle::randomise_biases(module, 4);
    const Tensor q = random_tensor(dtype, {2, 5, 6}, 5), k = random_tensor(dtype, {2, 7, 6}, 6),
                 v = random_tensor(dtype, {2, 7, 6}, 7), d_out = random_tensor(dtype, {2, 5, 6}, 8);
    Tensor mask = c.mask.empty() ? Tensor() : Tensor(dtype, c.mask), d_weights, weights;
    oracle::Random random(9);
    if (mask.defined()) {  // softly: scores move by about 1
      oracle::fill_with(mask, [&](const oracle::Index&) { return random.normal() * 0x1p-17; });
    }
    const int64_t keys = c.self ? 5 : 7;
    if (c.weights == WeightsMode::kAverage) d_weights = random_tensor(dtype, {2, 5, keys}, 10);
    if (c.weights == WeightsMode::kPerHead) d_weights = random_tensor(dtype, {2, 3, 5, keys}, 10);
    if (d_weights.defined()) weights = d_weights;
    const ReferenceStep step{.query = q.view(),
                             .key = c.self ? q.view() : k.view(),
                             .value = c.self ? q.view() : v.view(),
                             .options = {.attn_mask = mask.view(), .need_weights = c.weights},
                             .outputs = {d_out.view(), d_weights.view()}};
    TrainingContext context;
    TrainingResult got;
    Tensor out(dtype, q.shape());
    module.forward_into(step.query, step.key, step.value, mask.view(), {out, weights}, &context);
    got.d_query = Tensor(dtype, q.shape());
    got.d_key = Tensor(dtype, step.key.shape());
    got.d_value = Tensor(dtype, step.value.shape());
    if (mask.defined()) got.d_attn_mask = Tensor(dtype, mask.shape());
    got.parameters = ParameterGradients(module.state_dict());
    module.backward(context, step.outputs,
                    {.d_query = got.d_query,
                     .d_key = got.d_key,
                     .d_value = got.d_value,
                     .d_attn_mask = got.d_attn_mask.view()},
                    got.parameters.views());
    expect_gradients(got.gradients(), module_backward_reference(module, step),
                     std::string("module.gradient.scratch.") + dtype_name(dtype),
                     "mask " + mask.view().shape_string());
  }
}

// The budget is tight enough for what a defect would do.
TEST(ModuleGradientBudget, SmallErrorsAreNoticed) {
  TrainingSpec spec{.batch = 2, .q_len = 12, .kv_len = 15, .heads = 4, .head_dim = 16};
  spec.attn_mask = MaskKind::kFloat;
  spec.weights = WeightsMode::kPerHead;
  spec.dropout = 0.1;
  const TrainingProblem problem(spec);
  const ReferenceStep step = problem.reference_step();
  const auto truth = truths(module_backward_reference(problem.module, step));
  const auto noticed = [&](const ReferenceStep& wrong, const std::string& name, double factor) {
    const auto other = truths(module_backward_reference(problem.module, wrong));
    for (size_t i = 0; i < truth.size(); ++i) {
      if (truth[i].first != name) continue;
      Tensor got = oracle::converted(other[i].second.value, DType::kFloat32);
      for (int64_t n = 0; n < got.numel(); ++n) {
        got.data_as<float>()[n] *= static_cast<float>(factor);
      }
      return !oracle::compare_within_budget(got, truth[i].second.value, truth[i].second.budget,
                                            oracle::allowed_use(DType::kFloat32), Zeros::kPlausible)
                  .ok;
    }
    ADD_FAILURE() << "no gradient " << name;
    return false;
  };
  ReferenceStep no_weights = step, other_draw = step;
  no_weights.outputs.d_weights = {};
  ++other_draw.dropout.call;
  for (const auto& [name, unused] : truth) {
    EXPECT_FALSE(noticed(step, name, 1)) << name;
    EXPECT_TRUE(noticed(step, name, 1 + 0x1p-10)) << name;
    EXPECT_TRUE(noticed(other_draw, name, 1) || name == "out_proj.bias") << name;
    const bool after = name.starts_with("out_proj");  // the weights are made before
    EXPECT_TRUE(noticed(no_weights, name, 1) || after || name == "d_value" || name == "bias_v")
        << name;
  }
}

}  // namespace
}  // namespace polyhead
