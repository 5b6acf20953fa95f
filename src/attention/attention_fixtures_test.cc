// The double reference, forward and backward, against PyTorch's float64
// (tools/make_op_fixtures.py).
#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <polyhead/io.h>
#include "attention/attention_backward_reference.h"
#include "attention/attention_reference.h"
#include "testing/attention_check.h"
#include "testing/compare.h"
#include "testing/elements.h"
#include "testing/tolerance.h"

namespace polyhead::oracle {
namespace {

const SafetensorsFile& fixtures() {
  static const SafetensorsFile file(POLYHEAD_TEST_DATA "/op_fixtures.safetensors");
  return file;
}

// One case of the file, as a call on tensors it owns.
struct Fixture {
  std::string prefix;
  Tensor query, key, value, extra_key, extra_value, mask_bool, mask_add, d_weights;
  std::vector<Mask> masks;
  AttentionCall call;

  explicit Fixture(int number)
      : prefix(std::to_string(number) + "."),
        query(get("query")),
        key(get("key")),
        value(get("value")),
        extra_key(get("extra_key")),
        extra_value(get("extra_value")),
        mask_bool(get("mask_bool")),
        mask_add(get("mask_add")),
        d_weights(get("d_weights")) {
    if (mask_bool.defined()) masks.push_back(Mask::boolean(mask_bool, MaskSense::kIncluded));
    if (mask_add.defined()) masks.push_back(Mask::additive(mask_add));
    if (const Tensor causal = get("causal"); causal.defined()) {
      const bool top_left = *causal.data_as<int64_t>() == 1;
      masks.push_back(Mask::causal(top_left ? CausalAlign::kTopLeft : CausalAlign::kBottomRight));
    }
    call = {.query = query, .key = key, .value = value};
    if (extra_key.defined()) {
      call.extra_key = extra_key;
      call.extra_value = extra_value;
    }
    call.scale = *get("scale").data_as<double>();
    call.masks = masks;
    if (d_weights.defined()) {
      call.weights_mode = d_weights.rank() == 4 ? WeightsMode::kPerHead : WeightsMode::kAverage;
    }
  }
  Fixture(const Fixture&) = delete;

  // Not defined if the file has no such tensor.
  Tensor get(const std::string& name) const {
    return fixtures().find(prefix + name) == nullptr ? Tensor() : fixtures().read(prefix + name);
  }
};

class AttentionFixtures : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Cases, AttentionFixtures, ::testing::Range(0, 15));

TEST(AttentionFixturesFile, HoldsAsManyCasesAsAreTested) {
  EXPECT_EQ(fixtures().metadata().at("cases"), "15");
}

TEST_P(AttentionFixtures, ForwardReference) {
  const Fixture fixture(GetParam());
  const AttentionTruth truth = truth_of(fixture.call);
  const auto expect = [&](const Tensor& got, const Tensor& budget, const std::string& name) {
    expect_within_budget(got, fixture.get(name), budget,
                         {"fixtures.forward", fixture.prefix + name, Zeros::kPlausible});
  };
  expect(truth.reference.out, truth.reference.out_budget, "out");
  expect(truth.reference.lse, truth.reference.lse_budget, "lse");
  if (truth.weights.defined()) expect(truth.weights, truth.weights_budget, "weights");
}

// The op on every ISA and plan against torch's numbers, without our reference in between.
TEST_P(AttentionFixtures, Op) {
  const Fixture fixture(GetParam());
  AttentionTruth truth = truth_of(fixture.call);
  truth.reference.out = fixture.get("out");
  truth.reference.lse = fixture.get("lse");
  if (truth.weights.defined()) truth.weights = fixture.get("weights");
  for_each_kernel(fixture.call, [&](const std::string& plan, const std::string& what) {
    expect_truth(run_attention_case(fixture.call, plan), truth, "fixtures.op",
                 fixture.prefix + what);
  });
}

TEST_P(AttentionFixtures, BackwardReference) {
  const Fixture fixture(GetParam());
  const Tensor d_out = fixture.get("d_out");
  const ReferenceGradients gradients =
      attention_backward_reference(fixture.call, {d_out, fixture.d_weights});
  const auto expect = [&](const Tensor& got, const std::string& name) {
    const Tensor want = fixture.get(name);
    double largest = 0;
    for_each_index(want.shape(),
                   [&](const Index& at) { largest = std::max(largest, std::abs(read(want, at))); });
    Tensor budget(DType::kFloat64, want.shape());
    fill(budget, kGradientRoundings * unit_roundoff(DType::kFloat64) * largest);
    expect_within_budget(got, want, budget,
                         {"fixtures.backward", fixture.prefix + name, Zeros::kPlausible});
  };
  expect(gradients.d_query, "d_query");
  expect(gradients.d_key, "d_key");
  expect(gradients.d_value, "d_value");
  if (fixture.extra_key.defined()) {
    expect(gradients.d_extra_key, "d_extra_key");
    expect(gradients.d_extra_value, "d_extra_value");
  }
  if (fixture.mask_add.defined()) {
    expect(gradients.d_masks[fixture.mask_bool.defined() ? 1 : 0], "d_mask_add");
  }
}

}  // namespace
}  // namespace polyhead::oracle
