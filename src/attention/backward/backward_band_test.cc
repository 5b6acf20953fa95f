// Gradients under what positions decide: windows, offsets, key lengths, packed sequences. Against
// the double reference, and bit for bit against the same said in another way.
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

constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat64};
constexpr auto kCausal = Mask::Kind::kCausal;
constexpr auto kWindow = Mask::Kind::kWindow;
constexpr auto kKeyLengths = Mask::Kind::kKeyLengths;
constexpr auto kAdditive = Mask::Kind::kAdditive;
constexpr const char* kSuite = "backward_band";

TEST(BackwardBand, Windows) {
  for (DType dtype : kDTypes) {
    for (int64_t left : {Mask::kUnbounded, int64_t{0}, int64_t{7}, int64_t{30}}) {
      for (int64_t right : {Mask::kUnbounded, int64_t{0}, int64_t{9}}) {
        for (const QueryOffset& offset :
             {QueryOffset(CausalAlign::kTopLeft), QueryOffset(CausalAlign::kBottomRight),
              QueryOffset(-20), QueryOffset(300)}) {
          check_backward_case(
              {.q_len = 60,
               .kv_len = 75,
               .dtype = dtype,
               .masks = {{.kind = kWindow, .align = offset, .left = left, .right = right}}},
              kSuite);
        }
      }
    }
  }
}

// Windows on both sides of a border between chunks of 512 keys, and chunks that no row sees.
TEST(BackwardBand, WindowsAcrossChunks) {
  for (DType dtype : kDTypes) {
    for (int64_t offset : {440, 512, 540, 1030}) {
      for (WeightsMode weights : {WeightsMode::kNone, WeightsMode::kAverage}) {
        check_backward_case({.heads = 1,
                             .kv_heads = 1,
                             .q_len = 70,
                             .kv_len = 1200,
                             .dtype = dtype,
                             .masks = {{.kind = kWindow, .align = offset, .left = 30, .right = 5}},
                             .weights = weights},
                            kSuite);
      }
    }
  }
}

TEST(BackwardBand, KeyLengthsAndTensorMasks) {
  for (DType dtype : kDTypes) {
    for (int64_t kv_len : {1, 70, 600}) {
      for (Storage storage : {Storage::kContiguous, Storage::kGaps}) {
        check_backward_case({.batch = 4,
                             .heads = 4,
                             .kv_heads = 2,
                             .q_len = 33,
                             .kv_len = kv_len,
                             .extra = 1,
                             .dtype = dtype,
                             .masks = {{.kind = kKeyLengths},
                                       {.kind = kAdditive, .dims = "hls"},
                                       {.kind = kCausal, .align = CausalAlign::kBottomRight}},
                             .weights = WeightsMode::kPerHead,
                             .dropout_p = 0.2,
                             .storage = storage},
                            kSuite);
      }
    }
  }
}

class BackwardBandBits : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(DTypes, BackwardBandBits,
                         ::testing::Values(DType::kFloat32, DType::kFloat64));

TEST_P(BackwardBandBits, AsABooleanMaskSaysIt) {
  const AttentionCase spec = {.batch = 2,
                              .heads = 2,
                              .kv_heads = 1,
                              .q_len = 101,
                              .kv_len = 541,
                              .dtype = GetParam(),
                              .masks = {{.dims = "b1ls"}}};
  BackwardProblem problem(spec);
  const int64_t lengths[] = {530, 77};
  const std::vector<Mask> band = {Mask::window(45, 3, 450), Mask::key_lengths({lengths, {2}})};
  const TensorView boolean = problem.problem.mask_tensors[0].view();
  for_each_index(boolean.shape(), [&](const Index& at) {
    const int64_t i = at[2] + 450, j = at[3];
    const bool seen = j >= i - 45 && j <= i + 3 && j < lengths[at[0]];
    boolean.data_as<bool>()[offset_of(boolean, at)] = !seen;
  });
  for_each_backward(problem, [&](const std::string& plan, const std::string& what) {
    AttentionCall call = problem.problem.call();
    problem.forward = run_attention_case(call);
    call.plan = plan.c_str();
    const BackwardRun said = run_backward(call, problem.inputs());
    call.masks = band;
    expect_same_gradients(run_backward(call, problem.inputs()), said, what);
  });
}

// A packed call's inputs, forward and random cotangents.
struct PackedBackward {
  AttentionCall call;
  AttentionRun forward;
  GuardedTensor d_out;

  explicit PackedBackward(const PackedProblem& packed)
      : call(packed.call()),
        forward(run_attention_case(call)),
        d_out(call.query.dtype(), forward.out.view().shape()) {
    Random random(5);
    fill_with(d_out.view(), [&](const Index&) { return random.normal(); });
  }
  AttentionBackwardInputs inputs(int64_t begin, int64_t rows) const {
    return {.out = forward.out.view().narrow(2, begin, rows),
            .lse = forward.lse.view().narrow(2, begin, rows),
            .d_out = d_out.view().narrow(2, begin, rows),
            .lse_rest = forward.lse_rest.view().narrow(2, begin, rows)};
  }
  BackwardRun run(const char* plan) const {
    AttentionCall with_plan = call;
    with_plan.plan = plan;
    return run_backward(with_plan, inputs(0, call.q_len()), {.masks = false});
  }
  void expect_sequences_alone(const BackwardRun& all, const std::string& what) const {
    for (int64_t n = 0; n < call.num_sequences(); ++n) {
      std::vector<Mask> masks;
      const Sequence of = call.sequence(n);
      const BackwardRun alone = run_backward(sequence_alone(call, n, &masks),
                                             inputs(of.q_begin, of.q_len), {.masks = false});
      const std::string which = what + ", sequence " + std::to_string(n);
      expect_same_bits(all.d_query.view().narrow(2, of.q_begin, of.q_len), alone.d_query.view(),
                       which);
      expect_same_bits(all.d_key.view().narrow(2, of.k_begin, of.kv_len), alone.d_key.view(),
                       which);
      expect_same_bits(all.d_value.view().narrow(2, of.k_begin, of.kv_len), alone.d_value.view(),
                       which);
    }
  }
};

TEST_P(BackwardBandBits, PackedSequencesAsByThemselves) {
  const AttentionCase spec = {.heads = 4,
                              .kv_heads = 2,
                              .head_dim = 20,
                              .v_head_dim = 12,
                              .extra = 1,
                              .dtype = GetParam(),
                              .masks = {{.kind = kCausal, .align = CausalAlign::kBottomRight},
                                        {.kind = kWindow, .left = 30, .right = 600},
                                        {.dims = "hls"},
                                        {.kind = kAdditive, .dims = "1s"}},
                              .dropout_p = 0.2};
  for (const Lengths& lengths : some_lengths()) {
    const PackedProblem problem(lengths, spec);
    const PackedBackward packed(problem);
    for_each_isa([&](const std::string& isa) {
      for (const char* plan :
           {"backward_head_tasks", "backward_chunk_tasks", "backward_two_phases"}) {
        const std::string what = isa + ", " + plan;
        const BackwardRun run = packed.run(plan);
        packed.expect_sequences_alone(run, what);
        const Threads seven(7);
        expect_same_gradients(packed.run(plan), run, what + ", seven threads");
      }
    });
  }
}

TEST_P(BackwardBandBits, PackedReference) {
  const AttentionCase spec = {.kv_heads = 1, .extra = 1, .dtype = GetParam()};
  const PackedProblem problem({{3, 0, 9}, {4, 2, 20}}, spec);
  const PackedBackward packed(problem);
  const BackwardRun kernel = packed.run(nullptr), reference = packed.run("backward_reference");
  const AttentionCotangents cotangents = {packed.d_out.view()};
  const ReferenceGradients truth = attention_backward_reference(packed.call, cotangents);
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

}  // namespace
}  // namespace polyhead::oracle
