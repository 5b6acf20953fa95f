// What a backward refuses, with the words that say it, and that nothing has been written then.
#include <functional>
#include <string>

#include <gtest/gtest.h>
#include <polyhead/error.h>
#include "module/training/training_case.h"
#include "testing/compare.h"

namespace polyhead {
namespace {

using oracle::MaskKind;
using oracle::random_mha;
using oracle::random_tensor;
using oracle::TrainingProblem;
using oracle::TrainingResult;
using oracle::TrainingSpec;

void expect_refused(const std::string& words, const std::function<void()>& call) {
  try {
    call();
    ADD_FAILURE() << "nothing thrown; wanted: " << words;
  } catch (const InvalidArgument& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find(words), std::string::npos) << "got:    " << text << "\nwanted: " << words;
  }
}

// A step of [2, 5, 8] with all that has a gradient, filled with 7 before each backward.
class ModuleTrainingErrors : public ::testing::Test {
 protected:
  ModuleTrainingErrors() : problem_(spec()) {
    result_ = problem_.run(&context_);
    to_ = problem_.targets(&result_);
    for (const auto& [name, view] : result_.parameters.views()) oracle::fill(view, 7);
    for (Tensor* d : {&result_.d_query, &result_.d_key, &result_.d_value, &result_.d_attn_mask}) {
      oracle::fill(d->view(), 7);
    }
  }
  ~ModuleTrainingErrors() override {
    for (const auto& [name, view] : result_.gradients()) {
      Tensor sevens(view.dtype(), view.shape());
      oracle::fill(sevens, 7);
      oracle::expect_same_bits(view, sevens, name + " after a refusal");
    }
  }

  static TrainingSpec spec() { return {.attn_mask = MaskKind::kFloat, .padding = MaskKind::kBool}; }

  void expect_refused_backward(const std::string& words, const OutputGradients& outputs,
                               const InputGradients& inputs, const ParameterViews& parameters) {
    expect_refused("MultiheadAttention: " + words,
                   [&] { problem_.module.backward(context_, outputs, inputs, parameters); });
  }
  void expect_refused_parameters(const std::string& words, const ParameterViews& parameters) {
    expect_refused_backward(words, problem_.cotangents(), to_, parameters);
  }
  void expect_refused_inputs(const std::string& words, const InputGradients& inputs) {
    expect_refused_backward(words, problem_.cotangents(), inputs, result_.parameters.views());
  }
  void expect_refused_outputs(const std::string& words, const OutputGradients& outputs) {
    expect_refused_backward(words, outputs, to_, result_.parameters.views());
  }

  TrainingProblem problem_;
  TrainingContext context_;
  TrainingResult result_;
  InputGradients to_;
};

TEST_F(ModuleTrainingErrors, Contexts) {
  const auto backward = [&](const TrainingContext& context) {
    problem_.module.backward(context, problem_.cotangents(), to_, result_.parameters.views());
  };
  TrainingContext empty;
  expect_refused("MultiheadAttention: context: holds no forward; must be of this module's",
                 [&] { backward(empty); });
  TrainingContext moved = std::move(context_);
  expect_refused("context: holds no forward", [&] { backward(context_); });
  const TrainingProblem other(spec());
  other.run(&empty);
  expect_refused("context: is of another module, or of parameters that have changed since",
                 [&] { backward(empty); });
  problem_.module.repack();
  expect_refused("context: is of another module, or of parameters that have changed since",
                 [&] { backward(moved); });
  expect_refused("MultiheadAttention: context: is null; must be given", [&] {
    problem_.module.forward(problem_.query, problem_.key, problem_.value, {}, nullptr);
  });
}

TEST_F(ModuleTrainingErrors, DropoutOfTheContext) {
  TrainingContext context;
  context.dropout.p = 1.5;
  expect_refused("MultiheadAttention: context: dropout.p: got 1.5; must be between 0 and 1", [&] {
    problem_.module.forward(problem_.query, problem_.key, problem_.value, {}, &context);
  });
}

// A forward that is refused leaves no half a context.
TEST_F(ModuleTrainingErrors, ARefusedForwardLeavesTheContext) {
  expect_refused("MultiheadAttention: key: batch is 1", [&] {
    problem_.module.forward(problem_.query, problem_.key.view().narrow(0, 0, 1), problem_.value, {},
                            &context_);
  });
  EXPECT_EQ(context_.dropout.call, problem_.dropout.call + 1);
  Tensor d_value(DType::kFloat32, problem_.value.shape());
  problem_.module.backward(context_, problem_.cotangents(), {.d_value = d_value});
  oracle::expect_same_bits(d_value, problem_.run().d_value, "of the forward before");
}

TEST_F(ModuleTrainingErrors, Cotangents) {
  const Tensor wrong = random_tensor(DType::kFloat32, {2, 5, 7}, 1);
  const Tensor wide = random_tensor(DType::kFloat64, {2, 5, 8}, 1);
  const Tensor weights = random_tensor(DType::kFloat32, {2, 5, 7}, 1);
  expect_refused_outputs("d_out: not given; must be a tensor", {});
  expect_refused_outputs("d_out: shape is [2, 5, 7]; must be [2, 5, 8]", {.d_out = wrong});
  expect_refused_outputs("d_out: dtype is float64; must be float32, the module's", {.d_out = wide});
  expect_refused_outputs("d_weights: given, but the forward returned no weights; must be undefined",
                         {.d_out = problem_.d_out, .d_weights = weights});
  ForwardOptions options = problem_.options();
  options.need_weights = WeightsMode::kPerHead;
  problem_.module.forward(problem_.query, problem_.key, problem_.value, options, &context_);
  expect_refused_outputs("d_weights: shape is [2, 5, 7]; must be [2, 2, 5, 7]",
                         {.d_out = problem_.d_out, .d_weights = weights});
}

TEST_F(ModuleTrainingErrors, Inputs) {
  Tensor wrong(DType::kFloat32, {2, 5, 7}), wide(DType::kFloat64, {2, 7, 8}),
      mask(DType::kFloat32, {2, 7}), rows(DType::kFloat32, {2, 7, 8});
  const auto with = [&](TensorView InputGradients::* which, const TensorView& view) {
    InputGradients inputs = to_;
    inputs.*which = view;
    return inputs;
  };
  expect_refused_inputs("d_query: shape is [2, 7, 8]; must be [2, 5, 8]",
                        with(&InputGradients::d_query, rows));
  expect_refused_inputs("d_key: shape is [2, 5, 7]; must be [2, 7, 8]",
                        with(&InputGradients::d_key, wrong));
  expect_refused_inputs("d_value: dtype is float64", with(&InputGradients::d_value, wide));
  expect_refused_inputs("d_attn_mask: shape is [2, 7]; must be [5, 7]",
                        with(&InputGradients::d_attn_mask, mask));
  expect_refused_inputs("d_key_padding_mask: given, but the mask is bool; must be undefined",
                        with(&InputGradients::d_key_padding_mask, mask));
  problem_.module.forward(problem_.query, problem_.key, problem_.value, {}, &context_);
  expect_refused_inputs("d_attn_mask: given, but the forward had no such mask; must be undefined",
                        to_);
}

// What is read, and what else is written, lies elsewhere.
TEST_F(ModuleTrainingErrors, Memory) {
  const std::string overlaps = ": overlaps another tensor of the call; must be memory of its own";
  const auto with = [&](TensorView InputGradients::* which, const ConstTensorView& view) {
    InputGradients inputs = to_;
    inputs.*which = {const_cast<void*>(view.data()), view.dtype(), view.shape(), view.strides()};
    return inputs;
  };
  const auto strided = [](const TensorView& view, std::initializer_list<int64_t> strides) {
    return TensorView(view.data(), view.dtype(), view.shape(),
                      Shape(strides.begin(), strides.size()));
  };
  expect_refused_inputs("d_query: stride 1 is 0; must be memory of its own for each element",
                        with(&InputGradients::d_query, strided(to_.d_query, {40, 0, 1})));
  expect_refused_inputs("d_query" + overlaps, with(&InputGradients::d_query, problem_.query));
  expect_refused_inputs("d_query" + overlaps, with(&InputGradients::d_query, problem_.d_out));
  expect_refused_inputs("d_attn_mask" + overlaps,
                        with(&InputGradients::d_attn_mask, problem_.attn_mask));
  expect_refused_inputs("d_value" + overlaps,
                        with(&InputGradients::d_value, strided(to_.d_key, {56, 1, 7})));
  ParameterViews twice = result_.parameters.views(), query = twice;
  twice[3].second = twice[1].second.narrow(0, 4, 8);
  query[3].second = to_.d_query.select(0, 0).select(0, 0);
  expect_refused_parameters("out_proj.bias" + overlaps, twice);
  expect_refused_parameters("out_proj.bias" + overlaps, query);
}

// The same mask's memory, which the attention itself would read after it was written.
TEST(ModuleTrainingMemory, APaddingMaskIsNotItsGradient) {
  TrainingProblem problem({.attn_mask = MaskKind::kFloat, .padding = MaskKind::kFloat});
  TrainingContext context;
  problem.run(&context);
  const Tensor before(problem.padding);
  expect_refused("d_key_padding_mask: overlaps another tensor of the call", [&] {
    problem.module.backward(context, problem.cotangents(), {.d_key_padding_mask = problem.padding});
  });
  oracle::expect_same_bits(problem.padding, before, "the mask");
}

TEST_F(ModuleTrainingErrors, Parameters) {
  ParameterViews few = result_.parameters.views(), turned = few, wrong = few, wide = few;
  few.pop_back();
  std::swap(turned[0], turned[1]);
  Tensor square(DType::kFloat32, {8, 8}), narrow(DType::kFloat64, {8});
  wrong[0].second = square;
  wide[3].second = narrow;
  expect_refused_parameters("parameters: has 3 gradients; must be empty, or 4, as the state dict",
                            few);
  expect_refused_parameters(
      "parameters: \"in_proj_bias\" is number 0; must be \"in_proj_weight\": the state dict's",
      turned);
  expect_refused_parameters("in_proj_weight: shape is [8, 8]; must be [24, 8]", wrong);
  expect_refused_parameters("out_proj.bias: dtype is float64; must be float32", wide);
}

TEST(ScratchTrainingErrors, AreOfItsClass) {
  const FromScratchMultiHeadAttention module(8, 2);
  const Tensor x = random_tensor(DType::kFloat32, {2, 5, 8}, 1);
  Tensor d_x(DType::kFloat32, {2, 5, 8}), mask(DType::kInt32, {5}), d_mask(DType::kFloat32, {5});
  TrainingContext context;
  expect_refused("FromScratchMultiHeadAttention: context: holds no forward",
                 [&] { module.backward(context, {.d_out = x}, {.d_query = d_x}); });
  expect_refused("FromScratchMultiHeadAttention: context: is null",
                 [&] { module.forward(x, x, x, {}, nullptr); });
  module.forward(x, x, x, mask, &context);
  expect_refused("FromScratchMultiHeadAttention: d_attn_mask: given, but the mask is int32",
                 [&] { module.backward(context, {.d_out = x}, {.d_attn_mask = d_mask}); });
  const MultiheadAttention other =
      random_mha({.embed_dim = 8, .num_heads = 2, .layout = Layout::kBatchFirst});
  expect_refused("MultiheadAttention: context: is of another module",
                 [&] { other.backward(context, {.d_out = x}, {.d_query = d_x}); });
}

}  // namespace
}  // namespace polyhead
