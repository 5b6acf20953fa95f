// Training through the C ABI has the bits of the C++ API, and every field of its struct counts.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <polyhead/c_api.h>
#include <polyhead/polyhead.h>
#include "module/module_test_tools.h"
#include "testing/compare.h"
#include "tests/c_api/both.h"

namespace polyhead {
namespace {

using oracle::Both;
using oracle::c_tensor;
using oracle::expect_same_bits;
using oracle::ok;
using oracle::random_tensor;

constexpr DType kType = DType::kFloat64;

// One step, through C and through C++. Every option is another value than its default.
struct Step {
  Step() {
    polyhead_mha_config config{};
    config.struct_size = sizeof config;
    config.embed_dim = 8;
    config.num_heads = 2;
    config.layout = POLYHEAD_SEQUENCE_FIRST;
    config.dtype = POLYHEAD_FLOAT64;
    config.add_bias_kv = 1;
    config.dropout = 0.25;
    config.seed = 11;
    EXPECT_STREQ(ok(polyhead_mha_create(&config, nullptr, 0, &mha)), "ok");
    EXPECT_STREQ(ok(polyhead_training_context_create(&context)), "ok");
    const double p = 0.75;
    EXPECT_STREQ(ok(polyhead_training_context_set_dropout(context, 5, 9, &p)), "ok");
    own.dropout = {.seed = 5, .call = 9, .p = p};
  }
  ~Step() {
    polyhead_training_context_destroy(context);
    polyhead_mha_destroy(mha);
  }
  Step(const Step&) = delete;
  Step& operator=(const Step&) = delete;

  void forward() {
    polyhead_forward_options options{};
    options.struct_size = sizeof options;
    options.attn_mask = &mask.c;
    options.key_padding_mask = &padding.c;
    options.need_weights = POLYHEAD_WEIGHTS_AVERAGE;
    Both out{Tensor(kType, {4, 3, 8})}, weights{Tensor(kType, {3, 4, 7})};
    EXPECT_STREQ(ok(polyhead_mha_forward_training(mha, &options, &query.c, &key.c, &value.c, &out.c,
                                                  &weights.c, context)),
                 "ok");
    const auto expected = module.forward(query.view, key.view, value.view,
                                         {.attn_mask = mask.view,
                                          .key_padding_mask = padding.view,
                                          .need_weights = WeightsMode::kAverage},
                                         &own);
    expect_same_bits(out.view, expected.out, "out");
    expect_same_bits(weights.view, expected.weights, "weights");
  }

  const Both query{random_tensor(kType, {4, 3, 8}, 1)}, key{random_tensor(kType, {6, 3, 8}, 2)},
      value{random_tensor(kType, {6, 3, 8}, 3)}, mask{random_tensor(kType, {4, 6}, 4)},
      padding{random_tensor(kType, {3, 6}, 5)}, d_out{random_tensor(kType, {4, 3, 8}, 6)},
      d_weights{random_tensor(kType, {3, 4, 7}, 7)};
  polyhead_mha* mha = nullptr;
  polyhead_training_context* context = nullptr;
  TrainingContext own;
  const MultiheadAttention module{{.embed_dim = 8,
                                   .num_heads = 2,
                                   .layout = Layout::kSequenceFirst,
                                   .add_bias_kv = true,
                                   .dropout = 0.25,
                                   .dtype = kType},
                                  11};
};

TEST(CApiTraining, HasTheBitsOfCpp) {
  Step step;
  step.forward();
  const Both* const inputs[] = {&step.query, &step.key, &step.value, &step.mask, &step.padding};
  std::vector<std::unique_ptr<Both>> got;
  std::vector<Tensor> wanted;
  for (const Both* input : inputs) {
    got.push_back(std::make_unique<Both>(Tensor(kType, input->view.shape())));
    wanted.emplace_back(kType, input->view.shape());
  }
  ParameterGradients parameters(step.module.state_dict()), expected(step.module.state_dict());
  std::vector<polyhead_parameter> named;
  for (const auto& [name, view] : parameters.views()) {
    named.insert(named.begin(), {name.c_str(), c_tensor(view)});  // in any order
  }
  polyhead_gradients gradients = {sizeof gradients, &step.d_out.c, &step.d_weights.c, &got[0]->c,
                                  &got[1]->c,       &got[2]->c,    &got[3]->c,        &got[4]->c,
                                  named.data(),     named.size(),  /*accumulate=*/0,  0};
  for (const int32_t accumulate : {0, 1, 1}) {
    gradients.accumulate = accumulate;
    ASSERT_STREQ(ok(polyhead_mha_backward(step.mha, step.context, &gradients)), "ok");
    step.module.backward(step.own, {step.d_out.view, step.d_weights.view},
                         {wanted[0], wanted[1], wanted[2], wanted[3], wanted[4]}, expected.views(),
                         accumulate ? GradientMode::kAccumulate : GradientMode::kOverwrite);
    for (size_t i = 0; i < got.size(); ++i) {
      expect_same_bits(got[i]->view, wanted[i], "input " + std::to_string(i));
    }
    for (size_t i = 0; i < expected.views().size(); ++i) {
      const auto& [name, view] = parameters.views()[i];
      expect_same_bits(view, expected.views()[i].second, name);
    }
  }
}

// Values written in place count from repack on.
TEST(CApiTraining, RepackFollowsValuesWrittenInPlace) {
  const polyhead_scratch_config config = {sizeof config, 8, 2, 3, 0, POLYHEAD_FLOAT64};
  polyhead_scratch* scratch = nullptr;
  ASSERT_STREQ(ok(polyhead_scratch_create(&config, nullptr, 0, &scratch)), "ok");
  FromScratchMultiHeadAttention module(8, 2, HeadWidth::kSplit, 4, DType::kFloat64);
  for (const auto& [name, view] : module.state_dict()) {
    polyhead_tensor to;
    ASSERT_STREQ(ok(polyhead_scratch_get_parameter(scratch, name.c_str(), &to)), "ok");
    std::copy_n(view.data_as<double>(), view.numel(), static_cast<double*>(to.data));
  }
  ASSERT_STREQ(ok(polyhead_scratch_repack(scratch)), "ok");
  const Both x{random_tensor(DType::kFloat64, {2, 5, 8}, 1)};
  Both out{Tensor(DType::kFloat64, {2, 5, 8})};
  ASSERT_STREQ(ok(polyhead_scratch_forward(scratch, nullptr, &x.c, &x.c, &x.c, &out.c, nullptr)),
               "ok");
  expect_same_bits(out.view, module.forward(x.view, x.view, x.view), "out");
  polyhead_scratch_destroy(scratch);
}

}  // namespace
}  // namespace polyhead
