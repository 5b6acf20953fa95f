// Gradients under what positions decide: windows, offsets, key lengths. Against the double
// reference, and bit for bit against the same said in another way.
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include "testing/backward_check.h"
#include "testing/compare.h"
#include "testing/elements.h"
#include "testing/machine.h"

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

}  // namespace
}  // namespace polyhead::oracle
