// Every wrong argument of the backward is refused with one line that says what was got and what is
// needed, before any gradient is touched.
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <polyhead/attention.h>
#include <polyhead/error.h>
#include "attention/attention_backward.h"
#include "testing/elements.h"

namespace polyhead::oracle {
namespace {

constexpr int64_t kRoom = 2 * 4 * 8 * 8;

// B 2, H 4 of 2, L 3, S 5, D 8, Dv 6, one additive mask; all arguments right. The tests break one.
struct Arguments {
  Tensor memory{DType::kFloat32, {kRoom}};
  Tensor output{DType::kFloat32, {4 * kRoom}};
  ConstTensorView query = in({2, 4, 3, 8}), key = in({2, 2, 5, 8}), value = in({2, 2, 5, 6});
  AttentionOptions options;
  AttentionBackwardInputs inputs{
      .out = in({2, 4, 3, 6}), .lse = in({2, 4, 3}), .d_out = in({2, 4, 3, 6})};
  AttentionGradients gradients{.d_query = to(0, {2, 4, 3, 8}),
                               .d_key = to(1, {2, 2, 5, 8}),
                               .d_value = to(2, {2, 2, 5, 6}),
                               .d_masks = {to(3, {3, 5})}};

  Arguments() {
    options.masks = {Mask::additive(in({3, 5}))};
    fill(output, 77);
  }
  ConstTensorView in(std::initializer_list<int64_t> shape, DType dtype = DType::kFloat32) const {
    return {memory.data(), dtype, Shape(shape.begin(), shape.size())};
  }
  // The n-th part of the output.
  TensorView to(int n, std::initializer_list<int64_t> shape, DType dtype = DType::kFloat32) {
    return {output.data_as<float>() + n * kRoom, dtype, Shape(shape.begin(), shape.size())};
  }
  void run() const { attention_backward(query, key, value, options, inputs, gradients); }
  bool output_untouched() const {
    bool untouched = true;
    for_each_index(output.shape(), [&](const Index& at) { untouched &= read(output, at) == 77; });
    return untouched;
  }
};

struct BadCall {
  const char* message;  // the whole of it
  std::function<void(Arguments&)> spoil;
};

void expect_refused(const std::vector<BadCall>& calls) {
  for (const BadCall& bad : calls) {
    Arguments arguments;
    bad.spoil(arguments);
    try {
      arguments.run();
      ADD_FAILURE() << "accepted; expected: " << bad.message;
    } catch (const InvalidArgument& error) {
      EXPECT_STREQ(error.what(), bad.message);
    }
    EXPECT_TRUE(arguments.output_untouched()) << bad.message;
  }
}

TEST(BackwardValidation, TheArgumentsTheTestsBreakAreRight) {
  Arguments arguments;
  EXPECT_NO_THROW(arguments.run());
  EXPECT_FALSE(arguments.output_untouched());
}

// The forward's own checks lead their messages with the name of this function.
TEST(BackwardValidation, WhatTheForwardRefuses) {
  expect_refused({
      {"attention_backward: query: not given; must be a 4-dimensional tensor",
       [](Arguments& a) { a.query = {}; }},
      {"attention_backward: key: batch is 1 in [1, 2, 5, 8]; must be 2",
       [](Arguments& a) { a.key = a.in({1, 2, 5, 8}); }},
      {"attention_backward: key: num_kv_heads is 3; must be a divisor of 4 heads",
       [](Arguments& a) {
         a.key = a.in({2, 3, 5, 8});
         a.value = a.in({2, 3, 5, 6});
       }},
      {"attention_backward: scale: got 1e+39; must be a finite float32",
       [](Arguments& a) { a.options.scale = 1e39; }},
      {"attention_backward: masks[0]: size 0 is 5 in [5, 3]; must be 1 or q_len = 3",
       [](Arguments& a) { a.options.masks = {Mask::additive(a.in({5, 3}))}; }},
      {"attention_backward: masks[0]: the slope of head 0 is inf; must be a finite float32, also "
       "times the distance 8",
       [](Arguments& a) {
         static const double slopes[4] = {HUGE_VAL, 1, 1, 1};
         a.options.masks = {Mask::alibi({slopes, {4}})};
       }},
      {"attention_backward: dropout_p: got 2; must be between 0 and 1",
       [](Arguments& a) { a.options.dropout_p = 2; }},
      {"attention_backward: plan: got \"tile_per_head\"; must be one that `polyhead info` lists "
       "and "
       "that fits this call",
       [](Arguments& a) { a.options.plan = "tile_per_head"; }},
  });
}

TEST(BackwardValidation, WhatTheForwardWroteAndTheCotangents) {
  expect_refused({
      {"attention_backward: out: not given; must be a 4-dimensional tensor",
       [](Arguments& a) { a.inputs.out = {}; }},
      {"attention_backward: out: dtype is float64; must be query's float32",
       [](Arguments& a) { a.inputs.out = a.in({2, 4, 3, 6}, DType::kFloat64); }},
      {"attention_backward: out: v_head_dim is 8 in [2, 4, 3, 8]; must be 6",
       [](Arguments& a) { a.inputs.out = a.in({2, 4, 3, 8}); }},
      {"attention_backward: lse: not given; must be a 3-dimensional tensor",
       [](Arguments& a) { a.inputs.lse = {}; }},
      {"attention_backward: lse: num_heads is 2 in [2, 2, 3]; must be 4",
       [](Arguments& a) { a.inputs.lse = a.in({2, 2, 3}); }},
      {"attention_backward: lse_rest: q_len is 5 in [2, 4, 5]; must be 3",
       [](Arguments& a) { a.inputs.lse_rest = a.in({2, 4, 5}); }},
      {"attention_backward: lse_rest: dtype is float64; must be query's float32",
       [](Arguments& a) { a.inputs.lse_rest = a.in({2, 4, 3}, DType::kFloat64); }},
      {"attention_backward: d_out: not given; must be a 4-dimensional tensor",
       [](Arguments& a) { a.inputs.d_out = {}; }},
      {"attention_backward: d_out: q_len is 5 in [2, 4, 5, 6]; must be 3",
       [](Arguments& a) { a.inputs.d_out = a.in({2, 4, 5, 6}); }},
      {"attention_backward: d_weights: given, with WeightsMode::kNone; must be undefined",
       [](Arguments& a) { a.inputs.d_weights = a.in({2, 3, 5}); }},
      {"attention_backward: d_weights: shape is [2, 3, 5]; must be a 4-dimensional tensor",
       [](Arguments& a) {
         a.options.weights = WeightsMode::kPerHead;
         a.inputs.d_weights = a.in({2, 3, 5});
       }},
      {"attention_backward: d_weights: kv_len is 3 in [2, 3, 3]; must be 5",
       [](Arguments& a) {
         a.options.weights = WeightsMode::kAverage;
         a.inputs.d_weights = a.in({2, 3, 3});
       }},
  });
}

TEST(BackwardValidation, Gradients) {
  expect_refused({
      {"attention_backward: d_query: shape is [2, 4, 3, 6]; must be [2, 4, 3, 8]",
       [](Arguments& a) { a.gradients.d_query = a.to(0, {2, 4, 3, 6}); }},
      {"attention_backward: d_query: dtype is float64; must be query's float32",
       [](Arguments& a) { a.gradients.d_query = a.to(0, {2, 4, 3, 8}, DType::kFloat64); }},
      {"attention_backward: d_key: shape is [2, 4, 5, 8]; must be [2, 2, 5, 8]",
       [](Arguments& a) { a.gradients.d_key = a.to(1, {2, 4, 5, 8}); }},
      {"attention_backward: d_value: shape is [2, 5, 6]; must be a 4-dimensional tensor",
       [](Arguments& a) { a.gradients.d_value = a.to(2, {2, 5, 6}); }},
      {"attention_backward: d_value: stride 1 is 0; must be memory of its own for each element",
       [](Arguments& a) {
         const int64_t shape[] = {2, 2, 5, 6}, strides[] = {30, 0, 6, 1};
         a.gradients.d_value = {a.to(2, {1}).data(), DType::kFloat32, shape, strides};
       }},
      {"attention_backward: d_sinks: given, without sinks; must be undefined",
       [](Arguments& a) { a.gradients.d_sinks = a.to(3, {4}); }},
      {"attention_backward: d_sinks: shape is [1]; must be [4]",
       [](Arguments& a) {
         a.options.sinks = a.in({4});
         a.gradients.d_sinks = a.to(3, {1});
       }},
      {"attention_backward: d_masks: got 2 tensors; must be none, or one for each of 1 masks",
       [](Arguments& a) { a.gradients.d_masks.push_back({}); }},
      {"attention_backward: d_masks[0]: shape is [1, 3, 5]; must be a 2-dimensional tensor",
       [](Arguments& a) { a.gradients.d_masks[0] = a.to(3, {1, 3, 5}); }},
      {"attention_backward: d_masks[0]: dtype is float64; must be query's float32",
       [](Arguments& a) { a.gradients.d_masks[0] = a.to(3, {3, 5}, DType::kFloat64); }},
      {"attention_backward: d_masks[0]: given; must be undefined: the mask is not an additive one "
       "of a floating type",
       [](Arguments& a) {
         a.options.masks = {Mask::boolean(a.in({3, 5}, DType::kBool), MaskSense::kExcluded)};
       }},
      {"attention_backward: d_masks[0]: given; must be undefined: the mask is not an additive one "
       "of a floating type",
       [](Arguments& a) { a.options.masks = {Mask::additive(a.in({3, 5}, DType::kInt32))}; }},
      {"attention_backward: d_masks[0]: given; must be undefined: the mask is not an additive one "
       "of a floating type",
       [](Arguments& a) { a.options.masks = {Mask::causal()}; }},
  });
}

TEST(BackwardValidation, Overlaps) {
  const auto overlap = [](const char* name) {
    return std::string("attention_backward: ") + name +
           ": overlaps another tensor of the call; must be memory of its own";
  };
  const std::string query = overlap("d_query"), key = overlap("d_key"),
                    mask = overlap("d_masks[0]");
  expect_refused({
      {query.c_str(), [](Arguments& a) { a.value = a.to(0, {2, 2, 5, 6}); }},
      {query.c_str(), [](Arguments& a) { a.options.sinks = a.to(0, {4}); }},
      {query.c_str(),
       [](Arguments& a) {
         a.options.masks.push_back(
             Mask::segments(a.in({3}, DType::kInt32), a.to(0, {5}, DType::kInt32)));
         a.gradients.d_masks.emplace_back();
       }},
      {query.c_str(), [](Arguments& a) { a.inputs.lse = a.to(0, {2, 4, 3}); }},
      {query.c_str(), [](Arguments& a) { a.inputs.lse_rest = a.to(0, {2, 4, 3}); }},
      {query.c_str(), [](Arguments& a) { a.gradients.d_key = a.to(0, {2, 2, 5, 8}); }},
      {key.c_str(), [](Arguments& a) { a.gradients.d_value = a.to(1, {2, 2, 5, 6}); }},
      {key.c_str(), [](Arguments& a) { a.gradients.d_masks[0] = a.to(1, {3, 5}); }},
      {key.c_str(), [](Arguments& a) { a.options.masks = {Mask::additive(a.to(1, {3, 5}))}; }},
      {mask.c_str(), [](Arguments& a) { a.options.masks = {Mask::additive(a.to(3, {3, 5}))}; }},
      {mask.c_str(),
       [](Arguments& a) {
         a.options.masks.push_back(Mask::additive(a.in({3, 5})));
         a.gradients.d_masks.push_back(a.gradients.d_masks[0]);
       }},
  });
}

// Views of stride 0 may be of any length: 2^31 parts of 2^33 bytes are 0 bytes modulo 2^64.
TEST(BackwardValidation, PartsThatWrapAroundAreNotTried) {
  const float number = 0;
  const int64_t none[] = {0, 0, 0, 0}, queries[] = {1, 1, int64_t{1} << 28, 8},
                keys[] = {1, 1, 512 * ((int64_t{1} << 31) + 1), 8};
  const ConstTensorView query(&number, DType::kFloat32, queries, none),
      key(&number, DType::kFloat32, keys, none);
  BackwardCall backward{.call = call_of(query, key, key, {})};
  Tensor gradient(DType::kFloat32, {1, 1, 1, 8});
  backward.d_query = backward.d_key = gradient;
  backward.call.plan = "backward_chunk_tasks";
  for (const BackwardPlan& plan : backward_plans()) {
    if (std::string(plan.name) == backward.call.plan) {
      EXPECT_FALSE(plan.fits(backward));
    }
  }
}

TEST(BackwardValidation, ExtraColumns) {
  Arguments a;
  BackwardCall backward{.call = call_of(a.query, a.key, a.value, a.options)};
  backward.inputs = a.inputs;
  backward.call.extra_key = a.in({2, 1, 8});
  backward.call.extra_value = a.in({2, 1, 6});
  backward.d_extra_key = TensorView(a.output.data_as<float>(), {2, 2, 8});
  try {
    validate(backward, "backward");
    ADD_FAILURE() << "accepted";
  } catch (const InvalidArgument& error) {
    EXPECT_STREQ(error.what(), "backward: d_extra_key: shape is [2, 2, 8]; must be [2, 1, 8]");
  }
}

}  // namespace
}  // namespace polyhead::oracle
