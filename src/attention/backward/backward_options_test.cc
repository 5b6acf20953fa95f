// The public call: what it takes arrives, no option is dead, and threads, lent executors and the
// caller's floating-point environment change no bit.
#include <atomic>
#include <cfenv>
#include <cmath>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <polyhead/attention.h>
#include <polyhead/runtime.h>
#include "testing/backward_check.h"
#include "testing/compare.h"
#include "testing/elements.h"
#include "testing/machine.h"

namespace polyhead::oracle {
namespace {

constexpr auto kAdditive = Mask::Kind::kAdditive;

// Enough work to be shared out. head_dim 20: its default scale is not a float.
AttentionCase usual(DType dtype = DType::kFloat32) {
  return {.batch = 2,
          .heads = 4,
          .kv_heads = 2,
          .q_len = 61,
          .kv_len = 70,
          .head_dim = 20,
          .v_head_dim = 24,
          .dtype = dtype,
          .masks = {{.dims = "b11s"}, {.kind = kAdditive, .dims = "hls"}},
          .weights = WeightsMode::kAverage};
}

// Gradients by the public function.
struct Gradients {
  GuardedTensor d_query, d_key, d_value, d_mask;

  explicit Gradients(const AttentionCase& spec)
      : d_query(spec.dtype, {spec.batch, spec.heads, spec.q_len, spec.head_dim}),
        d_key(spec.dtype, {spec.batch, spec.kv_heads, spec.kv_len, spec.head_dim}),
        d_value(spec.dtype, {spec.batch, spec.kv_heads, spec.kv_len, spec.v_head_dim}),
        d_mask(spec.dtype, {spec.heads, spec.q_len, spec.kv_len}) {}
  AttentionGradients views() const {
    return {d_query.view(), d_key.view(), d_value.view(), {{}, d_mask.view()}};
  }
};

Gradients backward(const BackwardProblem& problem, const char* plan = nullptr) {
  const AttentionProblem& of = problem.problem;
  Gradients gradients(of.spec);
  attention_backward(of.query.view(), of.key.view(), of.value.view(),
                     {.masks = of.masks, .weights = of.spec.weights, .plan = plan},
                     problem.inputs(), gradients.views());
  return gradients;
}

void expect_same(const Gradients& a, const Gradients& b, const std::string& what) {
  expect_same_bits(a.d_query.view(), b.d_query.view(), "d_query: " + what);
  expect_same_bits(a.d_key.view(), b.d_key.view(), "d_key: " + what);
  expect_same_bits(a.d_value.view(), b.d_value.view(), "d_value: " + what);
  expect_same_bits(a.d_mask.view(), b.d_mask.view(), "d_mask: " + what);
}

TEST(AttentionBackward, FillsAllGradients) {
  const BackwardProblem problem(usual());
  const Gradients got = backward(problem);
  const BackwardRun run = run_backward_case(problem);
  expect_same_bits(got.d_query.view(), run.d_query.view(), "d_query");
  expect_same_bits(got.d_key.view(), run.d_key.view(), "d_key");
  expect_same_bits(got.d_value.view(), run.d_value.view(), "d_value");
  expect_same_bits(got.d_mask.view(), run.d_masks[1].view(), "d_masks");
}

TEST(AttentionBackward, EachOptionChangesTheGradients) {
  AttentionCase spec = usual();
  spec.masks = {{.dims = "ls"}, {.kind = kAdditive, .dims = "hls", .density = 0}};
  const BackwardProblem problem(spec);
  const auto run_with = [&](const std::function<void(AttentionCall&)>& change,
                            AttentionBackwardInputs inputs) {
    AttentionCall call = problem.problem.call();
    change(call);
    const BackwardRun run = run_backward(call, inputs);
    return Tensor(run.d_query.view());
  };
  const auto nothing = [](AttentionCall&) {};
  const Tensor base = run_with(nothing, problem.inputs());
  std::vector<Mask> masks = problem.problem.masks;
  masks[1] = Mask::additive(masks[1].tensor(), 2);
  const std::pair<const char*, std::function<void(AttentionCall&)>> changes[] = {
      {"scale", [](AttentionCall& call) { call.scale = 0.5; }},
      {"a mask less", [&](AttentionCall& call) { call.masks = std::span(masks).first(1); }},
      {"factor", [&](AttentionCall& call) { call.masks = masks; }},
      {"dropout", [](AttentionCall& call) { call.dropout.p = 0.5; }},
  };
  for (const auto& [name, change] : changes) {
    EXPECT_FALSE(compare_bits(run_with(change, problem.inputs()), base).ok) << name;
  }
  AttentionBackwardInputs inputs = problem.inputs();
  inputs.d_weights = {};
  EXPECT_FALSE(compare_bits(run_with(nothing, inputs), base).ok) << "d_weights";
  inputs = problem.inputs();
  inputs.lse_rest = {};
  EXPECT_FALSE(compare_bits(run_with(nothing, inputs), base).ok) << "lse_rest";
}

TEST(AttentionBackward, ReadsItsInputsOnly) {
  BackwardProblem problem(usual());
  AttentionProblem& of = problem.problem;
  for (GuardedTensor* tensor : {&of.query, &of.key, &of.value, &of.mask_tensors[0],
                                &of.mask_tensors[1], &problem.forward.out, &problem.forward.lse,
                                &problem.forward.lse_rest, &problem.d_out, &problem.d_weights}) {
    tensor->protect();
  }
  for_each_backward(problem, [&](const std::string& plan, const std::string& what) {
    EXPECT_TRUE(run_backward_case(problem, plan).intact()) << what;
  });
}

TEST(AttentionBackward, TakesAsManyMasksAsATileHoldsAndMore) {
  AttentionCase spec = usual();
  spec.q_len = 9;
  spec.kv_len = 12;
  for (size_t count : {7, 8, 9, 12}) {
    spec.masks.assign(count, {.kind = kAdditive, .dims = "ls", .density = 0.1});
    check_backward_case(spec, "backward");
  }
}

// The gradient of a sum is one number everywhere: a d_out of stride 0. So may be inputs.
TEST(AttentionBackward, ReadsExpandedInputs) {
  BackwardProblem problem(usual());
  fill(problem.d_out.view(), 1);
  const BackwardRun expected = run_backward_case(problem);
  const float one = 1;
  const ConstTensorView like = problem.d_out.view();
  const int64_t none[] = {0, 0, 0, 0};
  AttentionBackwardInputs inputs = problem.inputs();
  inputs.d_out = ConstTensorView(&one, DType::kFloat32, like.shape(), none);
  expect_same_gradients(run_backward(problem.problem.call(), inputs), expected, "stride 0");
}

// Queries, keys and values, and their gradients, as columns of one matrix.
TEST(AttentionBackward, WritesIntoAPackedProjection) {
  AttentionCase spec = {.batch = 2, .q_len = 37, .kv_len = 37, .masks = {{.dims = "b11s"}}};
  const BackwardProblem problem(spec);
  const BackwardRun expected = run_backward_case(problem);
  GuardedTensor packed(DType::kFloat32, {2, 37, 3, 2, 8});  // [B, L, 3, H, D]
  const auto part = [&](int64_t n) { return packed.view().select(2, n).transposed(1, 2); };
  const AttentionProblem& of = problem.problem;
  attention_backward(of.query.view(), of.key.view(), of.value.view(), {.masks = of.masks},
                     problem.inputs(), {part(0), part(1), part(2)});
  expect_same_bits(part(0), expected.d_query.view(), "d_query");
  expect_same_bits(part(1), expected.d_key.view(), "d_key");
  expect_same_bits(part(2), expected.d_value.view(), "d_value");
  EXPECT_TRUE(packed.intact());
}

TEST(AttentionBackward, RunsThePlanThatIsForced) {
  const BackwardProblem problem(usual());
  const Gradients chosen = backward(problem);
  for (const PlanInfo& plan : attention_backward_plans()) {
    EXPECT_GT(std::string(plan.when).size(), 10u) << plan.name;
    const bool reference = std::string(plan.name) == "backward_reference";
    const bool same =
        compare_bits(backward(problem, plan.name).d_query.view(), chosen.d_query.view()).ok;
    EXPECT_NE(same, reference) << plan.name;  // in double and rounded once: other bits
  }
}

TEST(AttentionBackward, ManyCallersAtOnce) {
  const BackwardProblem problem(usual());
  const Threads two(2);
  const Gradients expected = backward(problem);
  std::vector<std::thread> callers;
  std::atomic<int> different{0};
  for (int n = 0; n < 6; ++n) {
    callers.emplace_back([&] {
      for (int repeat = 0; repeat < 10; ++repeat) {
        const Gradients got = backward(problem);
        different += !compare_bits(got.d_query.view(), expected.d_query.view()).ok ||
                     !compare_bits(got.d_key.view(), expected.d_key.view()).ok ||
                     !compare_bits(got.d_mask.view(), expected.d_mask.view()).ok;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(different, 0);
}

// Backwards, each on a thread of its own.
void host_parallel_for(void* context, size_t count, ParallelTask task, void* argument) {
  ++*static_cast<std::atomic<int>*>(context);
  std::vector<std::thread> threads;
  for (size_t i = count; i-- > 0;) threads.emplace_back(task, argument, i);
  for (std::thread& thread : threads) thread.join();
}

TEST(AttentionBackward, ALentExecutorChangesNoBit) {
  const BackwardProblem problem(usual());
  const Threads four(4);
  const Gradients own = backward(problem);
  std::atomic<int> calls{0};
  lend_executor(host_parallel_for, &calls);
  const Gradients lent = backward(problem);
  lend_executor(nullptr, nullptr);
  EXPECT_GT(calls, 0);
  expect_same(lent, own, "lent executor");
}

TEST(AttentionBackward, TheCallersFloatEnvironmentChangesNoBit) {
  for (Regime regime : {Regime::kSigma1, Regime::kDenormal}) {
    AttentionCase spec = usual();
    spec.regime = regime;
    const BackwardProblem problem(spec);
    for_each_isa([&](const std::string& isa) {
      const Gradients nearest = backward(problem);
      for (int mode : {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO}) {
        ASSERT_EQ(std::fesetround(mode), 0);
        const Gradients got = backward(problem);
        const int after = std::fegetround();
        std::fesetround(FE_TONEAREST);
        EXPECT_EQ(after, mode) << "the caller's mode must be put back";
        expect_same(got, nearest, isa + ", mode " + std::to_string(mode));
      }
      const FloatControl saved = float_control();
      set_float_control(saved | kFlushToZero);
      const Gradients got = backward(problem);
      set_float_control(saved);
      expect_same(got, nearest, isa + ", flush to zero");
    });
  }
}

}  // namespace
}  // namespace polyhead::oracle
