// What positions decide: causal masks with an offset, windows and key lengths, which no tensor
// says. Against the double reference, and against the same said by a boolean mask, bit for bit.
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include "testing/attention_check.h"
#include "testing/compare.h"
#include "testing/elements.h"
#include "testing/machine.h"

namespace polyhead::oracle {
namespace {

constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat64};
constexpr auto kCausal = Mask::Kind::kCausal;
constexpr auto kWindow = Mask::Kind::kWindow;
constexpr auto kKeyLengths = Mask::Kind::kKeyLengths;
constexpr int64_t kAll = Mask::kUnbounded;
const QueryOffset kOffsets[] = {
    CausalAlign::kTopLeft, CausalAlign::kBottomRight, 13, -13, 1000, -1000};

MaskSpec window(int64_t left, int64_t right, QueryOffset offset = CausalAlign::kTopLeft) {
  return {.kind = kWindow, .align = offset, .left = left, .right = right};
}

TEST(AttentionBand, Offsets) {
  for (DType dtype : kDTypes) {
    for (const QueryOffset& offset : kOffsets) {
      for (WeightsMode weights : {WeightsMode::kAverage, WeightsMode::kPerHead}) {
        for (int64_t q_len : {1, 3, 60}) {
          check_case({.q_len = q_len,
                      .kv_len = 70,
                      .dtype = dtype,
                      .masks = {{.kind = kCausal, .align = offset}},
                      .empty_rows = EmptyRow::kNan,
                      .weights = weights},
                     "band");
          check_case({.q_len = q_len,
                      .kv_len = 70,
                      .dtype = dtype,
                      .masks = {window(10, 5, offset)},
                      .weights = weights},
                     "band");
        }
      }
    }
  }
}

TEST(AttentionBand, Windows) {
  for (DType dtype : kDTypes) {
    for (int64_t left : {kAll, int64_t{0}, int64_t{1}, int64_t{7}, int64_t{8}, int64_t{40}}) {
      for (int64_t right : {kAll, int64_t{0}, int64_t{1}, int64_t{7}, int64_t{8}, int64_t{40}}) {
        for (int64_t q_len : {2, 70}) {
          check_case({.q_len = q_len,
                      .kv_len = 75,
                      .dtype = dtype,
                      .masks = {window(left, right, CausalAlign::kBottomRight)},
                      .weights = WeightsMode::kPerHead},
                     "band");
        }
      }
    }
  }
}

// Windows that begin in one chunk of 1024 keys, or on its border, and end in the next.
TEST(AttentionBand, WindowsAcrossChunks) {
  for (DType dtype : kDTypes) {
    for (int64_t offset : {990, 1020, 1024, 1100, 2040, 2200}) {
      for (int64_t q_len : {1, 3, 50}) {
        check_case({.heads = 1,
                    .kv_heads = 1,
                    .q_len = q_len,
                    .kv_len = 2100,
                    .dtype = dtype,
                    .masks = {window(30, 20, offset)},
                    .weights = WeightsMode::kAverage},
                   "band");
      }
    }
  }
}

TEST(AttentionBand, KeyLengths) {
  for (DType dtype : kDTypes) {
    for (int64_t kv_len : {0, 1, 9, 70, 1030}) {
      for (int64_t q_len : {1, 18}) {
        for (const std::vector<MaskSpec>& masks :
             {std::vector<MaskSpec>{{.kind = kKeyLengths}},
              {{.kind = kKeyLengths}, {.kind = kCausal, .align = CausalAlign::kBottomRight}},
              {{.kind = kKeyLengths, .dtype = DType::kInt32},
               window(6, kAll, CausalAlign::kBottomRight),
               {.kind = kKeyLengths}}}) {
          check_case({.batch = 4,
                      .q_len = q_len,
                      .kv_len = kv_len,
                      .extra = kv_len % 2,
                      .dtype = dtype,
                      .masks = masks,
                      .weights = WeightsMode::kPerHead},
                     "band");
        }
      }
    }
  }
}

TEST(AttentionBand, WithTensorMasksDropoutAndStorages) {
  for (DType dtype : kDTypes) {
    for (Storage storage : kStorages) {
      for (Regime regime : {Regime::kPeaked, Regime::kAscending}) {
        check_case({.batch = 2,
                    .heads = 4,
                    .q_len = 53,
                    .kv_len = 90,
                    .extra = 1,
                    .dtype = dtype,
                    .regime = regime,
                    .masks = {{.dims = "ls"},
                              window(17, 9, 20),
                              {.kind = Mask::Kind::kAdditive, .dims = "hls"},
                              {.kind = kKeyLengths}},
                    .weights = WeightsMode::kAverage,
                    .dropout_p = 0.2,
                    .storage = storage},
                   "band");
      }
    }
  }
}

class AttentionBandBits : public ::testing::TestWithParam<DType> {
 protected:
  AttentionCase usual() const {
    return {.batch = 2,
            .heads = 2,
            .kv_heads = 1,
            .q_len = 101,
            .kv_len = 141,
            .head_dim = 20,
            .v_head_dim = 24,
            .dtype = GetParam(),
            .regime = Regime::kPeaked,
            .weights = WeightsMode::kPerHead};
  }
};
INSTANTIATE_TEST_SUITE_P(DTypes, AttentionBandBits,
                         ::testing::Values(DType::kFloat32, DType::kFloat64));

// The same pairs hidden by a tensor, and the numbers of hidden keys NaN.
TEST_P(AttentionBandBits, AsABooleanMaskSaysIt) {
  AttentionCase spec = usual();
  spec.masks = {{.dims = "b1ls"}};
  const AttentionProblem problem(spec);
  const int32_t lengths[] = {141, 77};
  const std::vector<Mask> band = {Mask::window(25, 3, 20), Mask::causal(19),
                                  Mask::key_lengths({lengths, {2}})};
  const TensorView boolean = problem.mask_tensors[0].view();
  for_each_index(boolean.shape(), [&](const Index& at) {
    const int64_t i = at[2] + 20, j = at[3];
    const bool seen = j >= i - 25 && j <= i - 1 && j < lengths[at[0]];
    boolean.data_as<bool>()[offset_of(boolean, at)] = !seen;
  });
  for (int64_t rows : {1, 3, 101}) {
    AttentionCall call = problem.call();
    call.query = call.query.narrow(2, 0, rows);
    const std::vector<Mask> masks = narrowed(problem.masks, 2, 0, rows);
    for_each_isa([&](const std::string& isa) {
      call.masks = masks;
      const AttentionRun said = run_attention_case(call);
      call.masks = band;
      expect_same_run(run_attention_case(call), said, isa + ", rows " + std::to_string(rows));
    });
  }
}

// What a row does not see may hold anything, and decides nothing.
TEST_P(AttentionBandBits, KeysOutsideMayBeNan) {
  AttentionCase spec = usual();
  spec.masks = {window(20, 0, 40), {.kind = kKeyLengths}};
  const AttentionProblem clean(spec), poisoned(spec);
  for (const GuardedTensor* tensor : {&poisoned.key, &poisoned.value}) {
    fill_with(tensor->view(), [&](const Index& at) {
      const bool seen = at[2] >= 20 && at[2] < integer_at(poisoned.mask_tensors[0].view(), at[0]);
      return seen ? read(tensor->view(), at) : std::numeric_limits<double>::quiet_NaN();
    });
  }
  for_each_isa([&](const std::string& isa) {
    expect_same_run(run_attention_case(poisoned.call()), run_attention_case(clean.call()), isa);
  });
}

// Rows of the whole sequence, and the same with the keys of their past in front.
TEST_P(AttentionBandBits, ChunksOfQueriesWithTheirOffset) {
  AttentionCase spec = usual();
  spec.masks = {{.kind = kCausal}, window(30, kAll)};
  const AttentionProblem problem(spec);
  for_each_isa([&](const std::string& isa) {
    const AttentionRun all = run_attention_case(problem.call());
    for (int64_t rows : {1, 4, 40}) {
      for (int64_t first : {0, 17, 61}) {
        AttentionCall call = problem.call();
        call.query = call.query.narrow(2, first, rows);
        const std::vector<Mask> masks = {Mask::causal(first), Mask::window(30, kAll, first)};
        call.masks = masks;
        expect_same_part(run_attention_case(call), all, 2, first,
                         isa + ", rows from " + std::to_string(first));
      }
    }
  });
}

// Keys past a length, and those that are not there at all.
TEST_P(AttentionBandBits, KeyLengthsAsFewerKeys) {
  AttentionCase spec = usual();
  spec.masks = {{.kind = kCausal, .align = CausalAlign::kBottomRight}};
  const AttentionProblem problem(spec);
  const int64_t lengths[] = {77, 120};
  const std::vector<Mask> masks = {problem.masks[0], Mask::key_lengths({lengths, {2}})};
  for_each_isa([&](const std::string& isa) {
    AttentionCall call = problem.call();
    call.masks = masks;
    const AttentionRun both = run_attention_case(call);
    for (int64_t b : {0, 1}) {
      AttentionCall alone = problem.call();
      alone.query = alone.query.narrow(0, b, 1);
      alone.key = alone.key.narrow(0, b, 1).narrow(2, 0, lengths[b]);
      alone.value = alone.value.narrow(0, b, 1).narrow(2, 0, lengths[b]);
      const AttentionRun run = run_attention_case(alone);
      expect_same_bits(run.out.view(), both.out.view().narrow(0, b, 1), isa);
      expect_same_bits(run.lse.view(), both.lse.view().narrow(0, b, 1), isa);
      expect_same_bits(run.weights.view(),
                       both.weights.view().narrow(0, b, 1).narrow(3, 0, lengths[b]), isa);
    }
  });
}

}  // namespace
}  // namespace polyhead::oracle
