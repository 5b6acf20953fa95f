// Gradients of packed batches: each sequence gets what it gets by itself, bit for bit.
#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include "testing/backward_check.h"
#include "testing/compare.h"
#include "testing/elements.h"
#include "testing/machine.h"
#include "testing/packed_case.h"

namespace polyhead::oracle {
namespace {

constexpr const char* kPlans[] = {"backward_head_tasks", "backward_chunk_tasks",
                                  "backward_two_phases"};
constexpr auto kCausal = Mask::Kind::kCausal;
constexpr auto kWindow = Mask::Kind::kWindow;
constexpr auto kAdditive = Mask::Kind::kAdditive;

class BackwardPacked : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(DTypes, BackwardPacked,
                         ::testing::Values(DType::kFloat32, DType::kFloat64));

AttentionBackwardInputs rows_of(const AttentionBackwardInputs& all, int64_t begin, int64_t rows) {
  return {.out = all.out.narrow(2, begin, rows),
          .lse = all.lse.narrow(2, begin, rows),
          .d_out = all.d_out.narrow(2, begin, rows),
          .lse_rest = all.lse_rest.narrow(2, begin, rows)};
}

// Of [.., L, S], where it does not broadcast.
ConstTensorView part_of(ConstTensorView mask, const Sequence& of) {
  const int query = mask.rank() - 2, key = mask.rank() - 1;
  if (mask.size(query) != 1) mask = mask.narrow(query, of.q_begin, of.q_len);
  return mask.size(key) == 1 ? mask : mask.narrow(key, of.k_begin, of.kv_len);
}

void expect_sequences_alone(const BackwardProblem& packed, const BackwardRun& all,
                            const std::string& what) {
  const AttentionCall call = packed.problem.call();
  for (int64_t n = 0; n < call.num_sequences(); ++n) {
    std::vector<Mask> masks;
    const Sequence of = call.sequence(n);
    const BackwardRun alone = run_backward(sequence_alone(call, n, &masks),
                                           rows_of(packed.inputs(), of.q_begin, of.q_len));
    const std::string which = what + ", sequence " + std::to_string(n);
    expect_same_bits(all.d_query.view().narrow(2, of.q_begin, of.q_len), alone.d_query.view(),
                     which);
    expect_same_bits(all.d_key.view().narrow(2, of.k_begin, of.kv_len), alone.d_key.view(), which);
    expect_same_bits(all.d_value.view().narrow(2, of.k_begin, of.kv_len), alone.d_value.view(),
                     which);
    for (size_t m = 0; m < masks.size(); ++m) {
      if (!alone.d_masks[m].defined()) continue;
      expect_same_bits(part_of(all.d_masks[m].view(), of), alone.d_masks[m].view(), which);
    }
  }
}

TEST_P(BackwardPacked, PackedSequencesAsByThemselves) {
  AttentionCase spec = {.heads = 4,
                        .kv_heads = 2,
                        .head_dim = 20,
                        .v_head_dim = 12,
                        .extra = 1,
                        .dtype = GetParam(),
                        .masks = {{.kind = kCausal, .align = CausalAlign::kBottomRight},
                                  {.kind = kWindow, .left = 30, .right = 600},
                                  {.dims = "hls"},
                                  {.kind = kAdditive, .dims = "1s"},
                                  {.kind = kAdditive, .dims = "hls"}},
                        .dropout_p = 0.2};
  for (const Lengths& lengths : some_lengths()) {
    spec.lengths = lengths;
    const BackwardProblem packed(spec);
    for_each_isa([&](const std::string& isa) {
      for (const char* plan : kPlans) {
        const std::string what = isa + ", " + plan;
        const BackwardRun run = run_backward_case(packed, plan);
        expect_sequences_alone(packed, run, what);
        const Threads seven(7);
        expect_same_gradients(run_backward_case(packed, plan), run, what + ", seven threads");
      }
    });
  }
}

TEST_P(BackwardPacked, PackedReference) {
  const BackwardProblem packed(
      {.kv_heads = 1, .lengths = {{3, 0, 9}, {4, 2, 20}}, .extra = 1, .dtype = GetParam()});
  const BackwardRun kernel = run_backward_case(packed),
                    reference = run_backward_case(packed, "backward_reference");
  const ReferenceGradients truth =
      attention_backward_reference(packed.problem.call(), packed.cotangents());
  const auto rounded = [&](const Tensor& tensor) {
    Tensor result(GetParam(), tensor.shape());
    fill_with(result, [&](const Index& at) { return read(tensor, at); });
    return result;
  };
  expect_same_bits(reference.d_query.view(), rounded(truth.d_query), "d_query");
  expect_same_bits(reference.d_key.view(), rounded(truth.d_key), "d_key");
  expect_same_bits(reference.d_value.view(), rounded(truth.d_value), "d_value");
  expect_same_bits(reference.d_extra_key.view(), rounded(truth.d_extra_key), "d_extra_key");
  expect_same_bits(reference.d_extra_value.view(), rounded(truth.d_extra_value), "d_extra_value");
  EXPECT_TRUE(kernel.intact() && reference.intact());
}

// Each way to broadcast over sequences, rows and keys; pairs of two sequences have 0.
TEST_P(BackwardPacked, MaskGradients) {
  for (const Lengths& lengths : some_lengths()) {
    for (const char* dims : {"ls", "hls", "bhls", "1s", "h1s", "l1", "hl1", "11", "h11"}) {
      check_backward_case({.heads = 4,
                           .lengths = lengths,
                           .extra = 1,
                           .dtype = GetParam(),
                           .masks = {{.kind = kAdditive, .dims = dims, .factor = -0.5},
                                     {.kind = kWindow, .left = 30, .right = 600}},
                           .sinks = true},
                          "backward_packed");
    }
  }
}

// Sequences of one query and one key, beside a batch of them; the same memory in other strides.
// Work for each sequence that grew with their number would take minutes.
TEST_P(BackwardPacked, ManyShortSequences) {
  constexpr int64_t kCount = 30000;
  const AttentionCase spec = {.batch = kCount,
                              .kv_heads = 1,
                              .q_len = 1,
                              .kv_len = 1,
                              .extra = 1,
                              .dtype = GetParam(),
                              .sinks = true};
  const BackwardProblem batch(spec);
  std::vector<int64_t> bounds(kCount + 1);
  std::iota(bounds.begin(), bounds.end(), 0);
  AttentionCall call = batch.problem.call();
  for (ConstTensorView* view : {&call.query, &call.key, &call.value}) {
    *view = view->transposed(0, 2);  // [N, H, 1, D] -> [1, H, N, D]
  }
  call.cu_seqlens_q = call.cu_seqlens_k = {bounds.data(), {kCount + 1}};
  AttentionBackwardInputs inputs = batch.inputs();
  for (ConstTensorView* view : {&inputs.out, &inputs.lse, &inputs.d_out, &inputs.lse_rest}) {
    *view = view->transposed(0, 2);
  }
  const BackwardRun want = run_backward_case(batch);
  for (const char* plan : kPlans) {
    call.plan = plan;
    const BackwardRun got = run_backward(call, inputs);
    expect_same_bits(got.d_query.view().transposed(0, 2), want.d_query.view(), plan);
    expect_same_bits(got.d_key.view().transposed(0, 2), want.d_key.view(), plan);
    expect_same_bits(got.d_value.view().transposed(0, 2), want.d_value.view(), plan);
    expect_same_bits(got.d_extra_key.view(), want.d_extra_key.view(), plan);
    expect_same_bits(got.d_sinks.view(), want.d_sinks.view(), plan);
  }
}

}  // namespace
}  // namespace polyhead::oracle
