// Keys and values of more than 8 MiB in all are taken to lie in memory: they are fetched ahead. No
// bit depends on it: each sequence by itself, of less than that, has the same.
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include "attention/cache/cache_test_tools.h"
#include "attention/tile_of_call.h"
#include "testing/attention_check.h"
#include "testing/compare.h"
#include "testing/machine.h"

namespace polyhead::oracle {
namespace {

constexpr int64_t kFarBytes = int64_t{9} << 20;

class FarKeys : public ::testing::TestWithParam<DType> {
 protected:
  // Three sequences, far together and near alone.
  static AttentionCase far(AttentionCase spec) {
    spec.batch = 3;
    spec.dtype = GetParam();
    spec.regime = Regime::kPeaked;
    const int64_t of_position = spec.batch * spec.kv_heads * (spec.head_dim + spec.v_head_dim) *
                                static_cast<int64_t>(dtype_bytes(spec.dtype));
    spec.kv_len = kFarBytes / of_position;
    return spec;
  }

  static AttentionCall item_of(const AttentionCall& of, const std::vector<Mask>& masks, int64_t b) {
    AttentionCall call = of;
    call.query = call.query.narrow(0, b, 1);
    call.key = call.key.narrow(0, b, 1);
    call.value = call.value.narrow(0, b, 1);
    call.masks = masks;
    call.first_sequence = b;
    EXPECT_TRUE(keys_are_far(of) && !keys_are_far(call));
    return call;
  }

  static void expect_same_alone(const AttentionCase& spec) {
    const AttentionProblem problem(spec);
    for_each_isa([&](const std::string& isa) {
      const AttentionRun all = run_attention_case(problem.call());
      for (int64_t b = 0; b < spec.batch; ++b) {
        const std::vector<Mask> masks = narrowed(problem.masks, 0, b, 1);
        const AttentionRun alone = run_attention_case(item_of(problem.call(), masks, b));
        const std::string what = isa + ", item " + std::to_string(b) + ": " + spec.describe();
        expect_same_bits(alone.out.view(), all.out.view().narrow(0, b, 1), what);
        expect_same_bits(alone.lse.view(), all.lse.view().narrow(0, b, 1), what);
        if (!alone.weights.defined()) continue;
        expect_same_bits(alone.weights.view(), all.weights.view().narrow(0, b, 1), what);
      }
    });
  }
};
INSTANTIATE_TEST_SUITE_P(DTypes, FarKeys, ::testing::Values(DType::kFloat32, DType::kFloat64));

// Rows in one party and in two, and too many of them.
TEST_P(FarKeys, InTensors) {
  for (const int64_t heads : {1, 3, 4, 5, 8, 9}) {
    expect_same_alone(
        far({.heads = heads, .kv_heads = 1, .q_len = 1, .head_dim = 128, .v_head_dim = 128}));
  }
  for (const int64_t q_len : {1, 6, 17}) {
    AttentionCase spec{.heads = 2,
                       .kv_heads = 2,
                       .q_len = q_len,
                       .head_dim = 40,
                       .v_head_dim = 131,
                       .weights = WeightsMode::kPerHead,
                       .storage = Storage::kHeadsInner};
    expect_same_alone(far(spec));
    spec.masks = {{.dims = "ls"}, {.kind = Mask::Kind::kCausal}};
    spec.dropout_p = 0.2;
    expect_same_alone(far(spec));
  }
}

// Pages end within a stretch, and lie anywhere.
TEST_P(FarKeys, InACache) {
  for (const int64_t heads : {2, 8, 10, 16}) {
    for (const int64_t page_len : {32, 96, 4096}) {
      const AttentionCase spec =
          far({.heads = heads, .kv_heads = 2, .head_dim = 128, .v_head_dim = 128});
      CacheBesideTensors beside(spec, spec.kv_len, config_of(spec, page_len, spec.kv_len));
      beside.append({spec.kv_len, spec.kv_len - 1, spec.kv_len / 2});
      for_each_isa([&](const std::string& isa) {
        for (const int64_t q_len : {1, 3}) {
          beside.expect_as_tensors(q_len, {.masks = {Mask::causal()}},
                                   isa + ", pages of " + std::to_string(page_len));
        }
      });
    }
  }
}

}  // namespace
}  // namespace polyhead::oracle
