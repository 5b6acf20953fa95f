// Packed batches: each sequence gets what it gets by itself, bit for bit.
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include "testing/attention_check.h"
#include "testing/compare.h"
#include "testing/elements.h"
#include "testing/machine.h"
#include "testing/packed_case.h"

namespace polyhead::oracle {
namespace {

constexpr auto kCausal = Mask::Kind::kCausal;

class AttentionPacked : public ::testing::TestWithParam<DType> {
 protected:
  // Every kind of mask that has a meaning here, grouped heads and what else positions enter.
  std::vector<AttentionCase> cases() const {
    AttentionCase plain = {.heads = 4,
                           .kv_heads = 2,
                           .head_dim = 20,
                           .v_head_dim = 12,
                           .dtype = GetParam(),
                           .regime = Regime::kPeaked};
    AttentionCase causal = plain, all = plain;
    causal.masks = {{.kind = kCausal, .align = CausalAlign::kBottomRight}};
    all.masks = {{.kind = kCausal, .align = 30},
                 {.kind = Mask::Kind::kWindow, .left = 20, .right = 40},
                 {.dims = "hls"},
                 {.kind = Mask::Kind::kAdditive, .dims = "1s"}};
    all.extra = 2;
    all.dropout_p = 0.3;
    all.storage = Storage::kHeadsInner;
    return {plain, causal, all};
  }
};
INSTANTIATE_TEST_SUITE_P(DTypes, AttentionPacked,
                         ::testing::Values(DType::kFloat32, DType::kFloat64));

void expect_sequences_alone(const AttentionCall& call, const AttentionRun& all,
                            const std::string& what) {
  for (int64_t n = 0; n < call.num_sequences(); ++n) {
    std::vector<Mask> masks;
    const Sequence of = call.sequence(n);
    const AttentionRun alone = run_attention_case(sequence_alone(call, n, &masks));
    const std::string which = what + ", sequence " + std::to_string(n);
    expect_same_bits(alone.out.view(), all.out.view().narrow(2, of.q_begin, of.q_len), which);
    expect_same_bits(alone.lse.view(), all.lse.view().narrow(2, of.q_begin, of.q_len), which);
    expect_same_bits(alone.lse_rest.view(), all.lse_rest.view().narrow(2, of.q_begin, of.q_len),
                     which);
  }
}

TEST_P(AttentionPacked, EachSequenceAsByItself) {
  for (const Lengths& lengths : some_lengths()) {
    for (AttentionCase spec : cases()) {
      spec.lengths = lengths;
      const AttentionProblem packed(spec);
      const AttentionCall call = packed.call();
      for_each_kernel(call, [&](const std::string& plan, const std::string& what) {
        const AttentionRun run = run_attention_case(call, plan, spec.storage);
        EXPECT_TRUE(run.intact()) << what;
        expect_sequences_alone(call, run, what);
        const Threads seven(7);
        expect_same_run(run_attention_case(call, plan), run, what + ", seven threads");
      });
    }
  }
}

TEST_P(AttentionPacked, AgainstTheReference) {
  for (const Lengths& lengths : some_lengths()) {
    for (AttentionCase spec : cases()) {
      spec.lengths = lengths;
      check_case(spec, "packed");
      const AttentionProblem packed(spec);
      const AttentionTruth truth = truth_of(packed.call());
      const AttentionRun reference = run_attention_case(packed.call(), "reference");
      expect_truth(reference, truth, "packed", "the plan reference");
    }
  }
}

// Lengths of the keys that count, and slopes and segments, sequence by sequence.
TEST_P(AttentionPacked, WithMasksOfItems) {
  for (Mask::Kind kind : {Mask::Kind::kKeyLengths, Mask::Kind::kAlibi, Mask::Kind::kSegments}) {
    for (AttentionCase spec : cases()) {
      spec.lengths = {{3, 60, 1}, {12, 70, 30}, DType::kInt64};
      spec.masks.push_back({.kind = kind, .dims = "b"});
      const AttentionProblem packed(spec);
      const AttentionRun run = run_attention_case(packed.call());
      expect_sequences_alone(packed.call(), run, spec.describe());
    }
  }
}

// The public function's own names for it.
TEST_P(AttentionPacked, AsThePublicFunctionTakesIt) {
  AttentionCase spec = cases()[1];
  spec.lengths = {{3, 60, 1}, {12, 70, 30}};
  const AttentionProblem problem(spec);
  AttentionOptions options;
  options.masks = problem.masks;
  options.cu_seqlens_q = problem.cu_seqlens_q.view();
  options.cu_seqlens_k = problem.cu_seqlens_k.view();
  const AttentionRun want = run_attention_case(problem.call());
  GuardedTensor out(spec.dtype, want.out.view().shape());
  attention_forward(problem.query.view(), problem.key.view(), problem.value.view(), options,
                    {.out = out.view()});
  expect_same_bits(out.view(), want.out.view(), "out");
}

// A batch without padding is the packed one of equal lengths.
TEST_P(AttentionPacked, EqualLengthsAsABatch) {
  AttentionCase spec = cases()[1];
  spec.batch = 3;
  spec.q_len = spec.kv_len = 51;
  spec.dropout_p = 0.1;
  spec.storage = Storage::kContiguous;
  const AttentionProblem batch(spec);
  const int64_t bounds[] = {0, 51, 102, 153};
  const auto in_a_row = [](const ConstTensorView& view) {  // [B, H, L, D] -> [1, H, B * L, D]
    Tensor row(view.dtype(), {1, view.size(1), view.size(0) * view.size(2), view.size(3)});
    for_each_index(view.shape(), [&](const Index& at) {
      write(row, {0, at[1], at[0] * view.size(2) + at[2], at[3]}, read(view, at));
    });
    return row;
  };
  const Tensor query = in_a_row(batch.query.view()), key = in_a_row(batch.key.view()),
               value = in_a_row(batch.value.view());
  AttentionCall call = batch.call();
  const Tensor out = in_a_row(run_attention_case(call).out.view());
  call.query = query;
  call.key = key;
  call.value = value;
  call.cu_seqlens_q = call.cu_seqlens_k = {bounds, {4}};
  expect_same_bits(run_attention_case(call).out.view(), out, "packed");
}

}  // namespace
}  // namespace polyhead::oracle
