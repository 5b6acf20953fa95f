// What must hold of a training step bit for bit, and what masked numbers and changed parameters may
// reach.
#include <algorithm>
#include <cfenv>
#include <cmath>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include "base/message.h"
#include "module/training/training_case.h"
#include "testing/compare.h"
#include "testing/machine.h"

namespace polyhead {
namespace {

using oracle::compare_bits;
using oracle::expect_same_bits;
using oracle::MaskKind;
using oracle::Sharing;
using oracle::TrainingProblem;
using oracle::TrainingResult;
using oracle::TrainingSpec;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

void expect_same(const TrainingResult& a, const TrainingResult& b, const std::string& what) {
  expect_same_bits(a.forward.out, b.forward.out, what + ": out");
  if (a.forward.weights.defined()) {
    expect_same_bits(a.forward.weights, b.forward.weights, what + ": weights");
  }
  const auto left = a.gradients(), right = b.gradients();
  ASSERT_EQ(left.size(), right.size());
  for (size_t i = 0; i < left.size(); ++i) {
    expect_same_bits(left[i].second, right[i].second, what + ": " + left[i].first);
  }
}

class ModuleTraining : public ::testing::TestWithParam<DType> {
 protected:
  // Every option at once, over the edges of tiles and the 512 keys of a chunk.
  TrainingSpec everything() const {
    return {.dtype = GetParam(),
            .batch = 3,
            .q_len = 50,
            .kv_len = 530,
            .heads = 3,
            .head_dim = 20,
            .kv_heads = 1,
            .qk_norm = true,
            .rope = {.pairs = RopePairs::kHalves, .rotary_dim = 18},
            .query_position = 480,
            .bias_kv = true,
            .zero_attn = true,
            .attn_mask = MaskKind::kFloat,
            .padding = MaskKind::kFloat,
            .attn_rank = 4,
            .hides_rows = true,
            .causal = true,
            .align = CausalAlign::kBottomRight,
            .weights = WeightsMode::kPerHead};
  }
  // The same, with one batch item, and with dropout.
  std::vector<TrainingSpec> variants() const {
    std::vector<TrainingSpec> specs(3, everything());
    specs[1].batch = 1;
    specs[2].dropout = 0.2;
    return specs;
  }
  TrainingSpec plain() const {
    return {.dtype = GetParam(), .batch = 3, .q_len = 9, .kv_len = 11, .heads = 2, .head_dim = 8};
  }
};
INSTANTIATE_TEST_SUITE_P(DTypes, ModuleTraining,
                         ::testing::Values(DType::kFloat32, DType::kFloat64));

TEST_P(ModuleTraining, ThreadsDoNotMatter) {
  for (const TrainingSpec& spec : variants()) {
    const TrainingProblem problem(spec);
    std::vector<TrainingResult> results;
    for (const int n : {1, 2, 3, 7}) {
      const oracle::Threads threads(n);
      results.push_back(problem.run());
      expect_same(results.back(), results.front(), std::to_string(n) + " threads");
    }
  }
}

TEST_P(ModuleTraining, InstructionSetsDoNotMatter) {
  for (const TrainingSpec& spec : variants()) {
    const TrainingProblem problem(spec);
    std::vector<TrainingResult> results;
    for (const std::string& isa : oracle::isas_with_fma()) {
      const oracle::ForcedIsa forced(isa);
      results.push_back(problem.run());
      expect_same(results.back(), results.front(), isa);
    }
  }
}

TEST_P(ModuleTraining, TheFloatingPointEnvironmentDoesNotMatter) {
  const TrainingProblem problem(everything());
  const TrainingResult expected = problem.run();
  for (const int mode : {FE_UPWARD, FE_TOWARDZERO}) {
    ASSERT_EQ(std::fesetround(mode), 0);
    const TrainingResult got = problem.run();
    EXPECT_EQ(std::fegetround(), mode);
    std::fesetround(FE_TONEAREST);
    expect_same(got, expected, "rounding mode");
  }
}

// The gradients of an item's inputs are a matter of the item alone. (Dropout knows items by
// number.)
TEST_P(ModuleTraining, BatchNeighboursDoNotMatter) {
  TrainingSpec spec = everything();
  spec.attn_rank = 3;
  const TrainingProblem problem(spec);
  const TrainingResult together = problem.run();
  for (int64_t b = 0; b < spec.batch; ++b) {
    const auto item = [&](const Tensor& x, int64_t n) { return x.view().narrow(0, b * n, n); };
    TrainingContext context;
    ForwardOptions options = problem.options();
    options.attn_mask = item(problem.attn_mask, spec.heads);
    options.key_padding_mask = item(problem.padding, 1);
    problem.module.forward(item(problem.query, 1), item(problem.key, 1), item(problem.value, 1),
                           options, &context);
    Tensor d_query(item(problem.query, 1)), d_key(item(problem.key, 1)),
        d_value(item(problem.value, 1)), d_mask(options.attn_mask);
    problem.module.backward(
        context, {item(problem.d_out, 1), item(problem.d_weights, 1)},
        {.d_query = d_query, .d_key = d_key, .d_value = d_value, .d_attn_mask = d_mask});
    const auto expect = [&](const Tensor& alone, const Tensor& all, int64_t n, const char* what) {
      expect_same_bits(alone, Tensor(item(all, n)), message(what, " of item ", b));
    };
    expect(d_query, together.d_query, 1, "d_query");
    expect(d_key, together.d_key, 1, "d_key");
    expect(d_value, together.d_value, 1, "d_value");
    expect(d_mask, together.d_attn_mask, spec.heads, "d_attn_mask");
  }
}

TEST_P(ModuleTraining, LayoutsAgree) {
  TrainingSpec spec = everything();
  spec.attn_rank = 2;  // where it broadcasts, 4-D masks are drawn differently
  const TrainingProblem problem(spec);
  const TrainingResult expected = problem.run();
  MultiheadAttention::Config config = problem.module.config();
  config.layout = Layout::kSequenceFirst;
  const MultiheadAttention module = oracle::random_mha(config, spec.seed);
  const auto turned = [](const ConstTensorView& x) { return Tensor(x.transposed(0, 1)); };
  TrainingContext context;
  context.dropout = problem.dropout;
  const Tensor query = turned(problem.query), key = turned(problem.key),
               value = turned(problem.value), d_out = turned(problem.d_out);
  const Tensor out = module.forward(query, key, value, problem.options(), &context).out;
  expect_same_bits(turned(out), expected.forward.out, "out");
  Tensor d_query = query, d_key = key, d_value = value;
  ParameterGradients parameters(module.state_dict());
  module.backward(context, {d_out, problem.d_weights.view()},
                  {.d_query = d_query, .d_key = d_key, .d_value = d_value}, parameters.views());
  expect_same_bits(turned(d_query), expected.d_query, "d_query");
  expect_same_bits(turned(d_key), expected.d_key, "d_key");
  expect_same_bits(turned(d_value), expected.d_value, "d_value");
  // Gradients of parameters sum over [B, L] in this order, whatever the strides.
  for (size_t i = 0; i < parameters.views().size(); ++i) {
    const auto& [name, view] = parameters.views()[i];
    expect_same_bits(view, expected.parameters.views()[i].second, name);
  }
}

// Inputs that are one tensor are as copies of it, in every gradient.
TEST_P(ModuleTraining, SharedInputsAreAsCopies) {
  TrainingSpec spec = plain();
  spec.kv_len = spec.q_len;
  spec.sharing = Sharing::kAll;
  spec.bias_kv = true;
  TrainingProblem problem(spec);
  const TrainingResult shared = problem.run();
  problem.key = problem.query;
  expect_same(problem.run(), shared, "key is value");
  problem.value = problem.query;
  expect_same(problem.run(), shared, "three copies");
}

TEST_P(ModuleTraining, WithoutDropoutTheForwardIsTheOther) {
  const TrainingProblem problem(everything()), dropping(variants()[2]);
  const auto evaluated = [](const TrainingProblem& p) {
    return p.module.forward(p.query, p.key, p.value, p.options());
  };
  const MultiheadAttention::Result expected = evaluated(problem);
  expect_same_bits(problem.run().forward.out, expected.out, "no dropout");
  expect_same_bits(problem.run().forward.weights, expected.weights, "no dropout");
  expect_same_bits(evaluated(dropping).out, expected.out, "dropout is for training");
  EXPECT_FALSE(compare_bits(dropping.run().forward.out, expected.out).ok);
}

TEST_P(ModuleTraining, EachForwardDrawsAnewAndResumedTheSame) {
  const TrainingProblem problem(variants()[2]);
  TrainingContext context;
  context.dropout = {.seed = 5};
  std::vector<Tensor> outs;
  const auto forward = [&](TrainingContext* with) {
    return problem.module
        .forward(problem.query, problem.key, problem.value, problem.options(), with)
        .out;
  };
  for (int i = 0; i < 3; ++i) {
    outs.push_back(forward(&context));
    for (int j = 0; j < i; ++j)
      EXPECT_FALSE(compare_bits(outs[static_cast<size_t>(j)], outs.back()).ok);
  }
  EXPECT_EQ(context.dropout.call, 3u);
  TrainingContext resumed;
  resumed.dropout = {.seed = 5, .call = 1};
  expect_same_bits(forward(&resumed), outs[1], "call 1");
  expect_same_bits(forward(&resumed), outs[2], "call 2");
  TrainingContext other;
  other.dropout = {.seed = 6};
  EXPECT_FALSE(compare_bits(forward(&other), outs[0]).ok);
}

TEST_P(ModuleTraining, TheContextMaySayHowMuchIsDropped) {
  const TrainingProblem problem(variants()[2]);
  const auto forward = [&](const DropoutDraw& dropout) {
    TrainingContext context;
    context.dropout = dropout;
    return problem.module
        .forward(problem.query, problem.key, problem.value, problem.options(), &context)
        .out;
  };
  expect_same_bits(forward({.seed = 5, .p = 0.2}), forward({.seed = 5}), "the module's own");
  const Tensor none =
      problem.module.forward(problem.query, problem.key, problem.value, problem.options()).out;
  expect_same_bits(forward({.seed = 5, .p = 0}), none, "no dropout");
  EXPECT_FALSE(compare_bits(forward({.seed = 5, .p = 0.5}), forward({.seed = 5})).ok);
}

// Backward leaves the context as it is; what is not asked for changes nothing of the rest.
TEST_P(ModuleTraining, BackwardMayBeRepeatedInParts) {
  const TrainingProblem problem(everything());
  TrainingContext context;
  const TrainingResult all = problem.run(&context);
  const size_t count = all.gradients().size();
  for (size_t wanted = 0; wanted < count; ++wanted) {
    TrainingResult part;
    InputGradients to = problem.targets(&part);
    ParameterViews parameters = part.parameters.views();
    TensorView* inputs[] = {&to.d_query, &to.d_key, &to.d_value, &to.d_attn_mask,
                            &to.d_key_padding_mask};
    for (size_t i = 0; i < count; ++i) {
      if (i != wanted) (i < 5 ? *inputs[i] : parameters[i - 5].second) = {};
    }
    problem.module.backward(context, problem.cotangents(), to, parameters);
    const auto [name, view] = all.gradients()[wanted];
    expect_same_bits(part.gradients()[wanted].second, view, name + " alone");
  }
}

TEST_P(ModuleTraining, AccumulationAddsTheFinishedGradient) {
  const TrainingProblem problem(everything());
  TrainingContext context;
  TrainingResult result = problem.run(&context);
  std::vector<Tensor> once;
  for (const auto& [name, view] : result.parameters.views()) {
    once.emplace_back(view);
    oracle::fill_with(view, [&](const oracle::Index& at) { return oracle::read(view, at) / 3; });
  }
  std::vector<Tensor> before;
  for (const auto& [name, view] : result.parameters.views()) before.emplace_back(view);
  problem.module.backward(context, problem.cotangents(), {}, result.parameters.views(),
                          GradientMode::kAccumulate);
  for (size_t i = 0; i < once.size(); ++i) {
    const auto& [name, view] = result.parameters.views()[i];
    Tensor sum(view.dtype(), view.shape());
    oracle::fill_with(sum, [&](const oracle::Index& at) {
      return oracle::read(before[i], at) + oracle::read(once[i], at);  // rounded as it is stored
    });
    expect_same_bits(view, sum, name);
  }
}

// Gradients of any strides are written where they say and nowhere else.
TEST_P(ModuleTraining, GradientsMayBeStrided) {
  const TrainingProblem problem(everything());
  TrainingContext context;
  const TrainingResult expected = problem.run(&context);
  std::vector<Tensor> memory;
  const auto strided = [&](const ConstTensorView& like) {
    std::vector<int64_t> shape(like.shape().begin(), like.shape().end());
    std::swap(shape.front(), shape.back());
    shape.push_back(2);
    memory.emplace_back(like.dtype(), shape);
    oracle::fill(memory.back(), 7);
    const TensorView view = memory.back().view().select(like.rank(), 1);
    return like.rank() > 1 ? view.transposed(0, like.rank() - 1) : view;
  };
  std::vector<TensorView> views;
  for (const auto& [name, view] : expected.gradients()) views.push_back(strided(view));
  ParameterViews parameters;
  for (size_t i = 5; i < views.size(); ++i) {
    parameters.emplace_back(expected.gradients()[i].first, views[i]);
  }
  problem.module.backward(context, problem.cotangents(),
                          {.d_query = views[0],
                           .d_key = views[1],
                           .d_value = views[2],
                           .d_attn_mask = views[3],
                           .d_key_padding_mask = views[4]},
                          parameters);
  for (size_t i = 0; i < views.size(); ++i) {
    const auto [name, view] = expected.gradients()[i];
    expect_same_bits(Tensor(views[i]), view, name);
    Tensor untouched(view.dtype(), view.shape());
    oracle::fill(untouched, 7);
    const ConstTensorView between = memory[i].view().select(view.rank(), 0);
    expect_same_bits(Tensor(view.rank() > 1 ? between.transposed(0, view.rank() - 1) : between),
                     untouched, name + ": between");
  }
}

TEST_P(ModuleTraining, AContextServesManyShapes) {
  TrainingContext context;
  for (const int64_t batch : {3, 1, 2}) {
    TrainingSpec spec = everything();
    spec.batch = batch;
    const TrainingProblem problem(spec);
    expect_same(problem.run(&context), problem.run(), "a used context");
    TrainingContext moved = std::move(context);
    context = std::move(moved);
  }
}

// A position that no query sees, and a query that sees no position, may be NaN: nothing of it
// reaches a gradient, not even as 0 * NaN in the products with the inputs.
TEST_P(ModuleTraining, HiddenNumbersReachNothing) {
  TrainingSpec spec = plain();
  TrainingProblem problem(spec);
  Tensor hidden(DType::kBool, {3, 11}), rows(DType::kBool, {9, 11});
  for (int64_t n = 0; n < 33; ++n) hidden.data_as<bool>()[n] = n % 11 == 4 || n == 32;
  for (int64_t j = 0; j < 11; ++j) rows.data_as<bool>()[2 * 11 + j] = true;  // query 2
  problem.padding = hidden;
  problem.attn_mask = rows;
  const TrainingResult clean = problem.run();
  for (int64_t b = 0; b < 3; ++b) {
    oracle::fill(problem.key.view().select(0, b).select(0, 4), kNan);
    oracle::fill(problem.value.view().select(0, b).select(0, 4),
                 std::numeric_limits<double>::infinity());
    oracle::fill(problem.query.view().select(0, b).select(0, 2), kNan);
  }
  oracle::fill(problem.value.view().select(0, 2).select(0, 10), kNan);
  expect_same(problem.run(), clean, "NaN where no one looks");
}

TEST_P(ModuleTraining, VisibleNanIsPassedOn) {
  TrainingSpec spec = plain();
  spec.causal = true;
  TrainingProblem problem(spec);
  const TrainingResult clean = problem.run();
  const Tensor value = problem.value;
  oracle::fill(problem.value.view().select(0, 1).select(0, 3), kNan);
  const TrainingResult dirty = problem.run();
  const auto is_nan = [](const ConstTensorView& view) {
    return std::isnan(oracle::read(view, {}));
  };
  const auto row = [](const Tensor& x, int64_t b, int64_t i) {
    return Tensor(x.view().select(0, b).select(0, i));
  };
  EXPECT_TRUE(is_nan(row(dirty.d_query, 1, 3)));  // query 3 sees value 3
  expect_same_bits(row(dirty.d_query, 1, 2), row(clean.d_query, 1, 2), "query 2 does not");
  expect_same_bits(Tensor(dirty.d_query.view().select(0, 0)),
                   Tensor(clean.d_query.view().select(0, 0)), "another item");
  for (const auto& [name, view] : dirty.parameters.views()) {
    const bool sees = name != "out_proj.bias";
    bool found = false;
    oracle::for_each_index(view.shape(), [&](const oracle::Index& at) {
      found = found || std::isnan(oracle::read(view, at));
    });
    EXPECT_EQ(found, sees) << name;
  }
  problem.value = value;
  oracle::fill(problem.d_out.view().select(0, 1).select(0, 3), kNan);
  EXPECT_TRUE(is_nan(row(problem.run().d_query, 1, 3)));
}

// Rows without a visible key, and then nothing but such rows: zero, finite gradients.
TEST_P(ModuleTraining, EmptyRowsHaveNoGradient) {
  for (const EmptyRow empty_rows : {EmptyRow::kZero, EmptyRow::kNan}) {
    TrainingSpec spec = plain();
    spec.empty_rows = empty_rows;
    spec.weights = WeightsMode::kAverage;
    TrainingProblem problem(spec);
    Tensor hidden(DType::kBool, {3, 11});
    for (int64_t j = 0; j < 11; ++j) hidden.data_as<bool>()[11 + j] = true;  // item 1
    problem.padding = hidden;
    const TrainingResult result = problem.run();
    const Tensor query(GetParam(), {9, 16}), key(GetParam(), {11, 16});
    expect_same_bits(Tensor(result.d_query.view().select(0, 1)), query, "d_query of item 1");
    expect_same_bits(Tensor(result.d_key.view().select(0, 1)), key, "d_key of item 1");
    expect_same_bits(Tensor(result.d_value.view().select(0, 1)), key, "d_value of item 1");
    for (const auto& [name, view] : result.gradients()) {
      // Only what multiplies the NaN that was asked for is NaN.
      if (empty_rows == EmptyRow::kNan && name == "out_proj.weight") continue;
      oracle::for_each_index(view.shape(), [&](const oracle::Index& at) {
        EXPECT_TRUE(std::isfinite(oracle::read(view, at))) << name;
      });
    }
    oracle::fill(problem.query, kNan);
    std::fill_n(hidden.data_as<bool>(), hidden.numel(), true);
    problem.padding = hidden;
    const TrainingResult nothing = problem.run();
    for (const auto& [name, view] : nothing.gradients()) {
      if (name == "out_proj.bias") continue;
      if (empty_rows == EmptyRow::kNan && name == "out_proj.weight") continue;
      expect_same_bits(view, Tensor(view.dtype(), view.shape()), name + " where all is hidden");
    }
  }
}

TEST_P(ModuleTraining, EmptyShapesHaveZeroGradients) {
  const int64_t sizes[][3] = {{0, 9, 11}, {3, 0, 11}, {3, 9, 0}, {0, 0, 0}};
  for (const auto& [batch, q_len, kv_len] : sizes) {
    TrainingSpec spec = plain();
    spec.batch = batch;
    spec.q_len = q_len;
    spec.kv_len = kv_len;
    spec.attn_mask = MaskKind::kFloat;
    const TrainingProblem problem(spec);
    TrainingContext context;
    TrainingResult result = problem.run(&context);
    for (const auto& [name, view] : result.gradients()) {
      const bool depends = name == "out_proj.bias" && batch * q_len > 0;
      EXPECT_EQ(compare_bits(view, Tensor(view.dtype(), view.shape())).ok, !depends) << name;
    }
    const TensorView bias = result.parameters.views().back().second;
    const Tensor once(bias);
    problem.module.backward(context, problem.cotangents(), {}, result.parameters.views(),
                            GradientMode::kAccumulate);
    EXPECT_EQ(compare_bits(bias, once).ok, batch * q_len == 0);
    oracle::fill(bias, 5);
    problem.module.backward(context, problem.cotangents(), {}, result.parameters.views());
    expect_same_bits(bias, once, "overwritten");
  }
}

// A module whose values an optimiser writes in place is as one made of these values.
TEST_P(ModuleTraining, ChangedParametersAreFollowed) {
  for (const int64_t kdim : {0, 5}) {
    TrainingSpec spec = plain();
    spec.kdim = kdim;
    spec.bias_kv = true;
    TrainingProblem problem(spec);
    for (int step = 0; step < 3; ++step) {
      const TrainingResult gradients = problem.run();
      const ParameterViews parameters = problem.module.parameters();
      ASSERT_EQ(parameters.size(), gradients.parameters.views().size());
      for (size_t i = 0; i < parameters.size(); ++i) {
        const ConstTensorView d = gradients.parameters.views()[i].second;
        oracle::fill_with(parameters[i].second, [&](const oracle::Index& at) {
          return oracle::read(parameters[i].second, at) - 0.1 * oracle::read(d, at);
        });
      }
      problem.module.repack();
      TrainingProblem fresh(spec);
      for (const auto& [name, view] : problem.module.state_dict()) {
        fresh.module.set_parameter(name, view);
      }
      expect_same(problem.run(), fresh.run(), "step " + std::to_string(step));
      expect_same_bits(problem.module.forward(problem.query, problem.key, problem.value).out,
                       fresh.module.forward(fresh.query, fresh.key, fresh.value).out, "evaluation");
    }
  }
}

TEST_P(ModuleTraining, ManyThreadsMayTrain) {
  const TrainingProblem problem(everything());
  const TrainingResult alone = problem.run();
  std::vector<TrainingResult> results(4);
  std::vector<std::thread> callers;
  for (TrainingResult& result : results) {
    callers.emplace_back([&] { result = problem.run(); });
  }
  for (std::thread& caller : callers) caller.join();
  for (const TrainingResult& result : results) expect_same(result, alone, "in parallel");
}

}  // namespace
}  // namespace polyhead
