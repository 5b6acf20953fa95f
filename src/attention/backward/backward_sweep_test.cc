// The backward against its double reference over shapes, heads, masks, options and layouts, on
// every instruction set and plan.
#include <gtest/gtest.h>
#include "testing/backward_check.h"
#include "testing/machine.h"

namespace polyhead::oracle {
namespace {

constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat64};
constexpr auto kCausal = Mask::Kind::kCausal;
constexpr auto kAdditive = Mask::Kind::kAdditive;
constexpr const char* kSuite = "backward";

// Around 8 and 16 lanes, the 8 keys of a granule, and the 48, 24 and 16 queries of a tile.
constexpr int64_t kLengths[] = {0, 1, 2, 7, 8, 9, 15, 16, 17, 23, 24, 25, 47, 48, 49, 51, 99};

TEST(BackwardSweep, QueryLengths) {
  for (DType dtype : kDTypes) {
    for (int64_t q_len : kLengths) {
      check_backward_case({.q_len = q_len, .kv_len = 19, .dtype = dtype}, kSuite);
    }
  }
}

TEST(BackwardSweep, KeyLengths) {
  for (DType dtype : kDTypes) {
    for (int64_t kv_len : kLengths) {
      check_backward_case({.q_len = 18, .kv_len = kv_len, .dtype = dtype}, kSuite);
    }
    // Blocks of 64, chunks of 512.
    for (int64_t kv_len : {63, 64, 65, 128, 511, 512, 513, 1024, 1030}) {
      check_backward_case({.heads = 1,
                           .kv_heads = 1,
                           .q_len = 3,
                           .kv_len = kv_len,
                           .dtype = dtype,
                           .weights = WeightsMode::kPerHead},
                          kSuite);
    }
  }
}

TEST(BackwardSweep, HeadDims) {
  for (DType dtype : kDTypes) {
    for (int64_t dim : {0, 1, 2, 7, 8, 20, 36, 40, 64, 80, 96, 128, 256}) {
      check_backward_case({.heads = 1,
                           .kv_heads = 1,
                           .q_len = 17,
                           .kv_len = 21,
                           .head_dim = dim,
                           .v_head_dim = dim,
                           .dtype = dtype},
                          kSuite);
      check_backward_case({.heads = 1,
                           .kv_heads = 1,
                           .q_len = 3,
                           .kv_len = 21,
                           .head_dim = 16,
                           .v_head_dim = dim,
                           .dtype = dtype},
                          kSuite);
    }
  }
}

TEST(BackwardSweep, BatchesAndHeads) {
  struct Heads {
    int64_t batch, heads, kv_heads;
  };
  for (const auto& [batch, heads, kv_heads] :
       {Heads{1, 1, 1}, Heads{3, 2, 2}, Heads{2, 6, 2}, Heads{2, 4, 1}, Heads{1, 3, 3}}) {
    for (int64_t extra : {0, 1, 2}) {
      check_backward_case({.batch = batch,
                           .heads = heads,
                           .kv_heads = kv_heads,
                           .q_len = 50,
                           .kv_len = 30,
                           .extra = extra},
                          kSuite);
    }
  }
}

TEST(BackwardSweep, Masks) {
  const std::vector<std::vector<MaskSpec>> lists = {
      {{.kind = kCausal}},
      {{.kind = kCausal, .align = CausalAlign::kBottomRight}},
      {{.dims = "ls"}},
      {{.dims = "b11s", .pattern = MaskPattern::kPadding}},
      {{.dims = "bhls", .pattern = MaskPattern::kEmptyRows}},
      {{.dims = "ls", .pattern = MaskPattern::kOneKey}},
      {{.kind = kAdditive, .dims = "ls"}},
      {{.kind = kAdditive, .dims = "bhls", .factor = -0.5}},
      {{.kind = kAdditive, .dims = "b11s", .pattern = MaskPattern::kPadding}},
      {{.kind = kAdditive, .dims = "hl1", .density = 0.05}},
      {{.kind = kAdditive, .dims = "1h11", .density = 0}},
      {{.kind = kAdditive, .dims = "hls", .dtype = DType::kFloat64}, {.kind = kCausal}},
      {{.kind = kAdditive, .dims = "ls", .dtype = DType::kInt32}, {.dims = "b1ls"}},
      {{.kind = kAdditive, .dims = "11l1"}, {.kind = kAdditive, .dims = "1s"}, {.kind = kCausal}},
  };
  for (const auto& masks : lists) {
    for (WeightsMode weights : {WeightsMode::kNone, WeightsMode::kAverage, WeightsMode::kPerHead}) {
      check_backward_case({.batch = 2,
                           .heads = 3,
                           .kv_heads = 3,
                           .q_len = 51,
                           .kv_len = 45,
                           .extra = weights == WeightsMode::kNone ? 0 : 1,
                           .masks = masks,
                           .weights = weights},
                          kSuite);
    }
    check_backward_case({.q_len = 9, .kv_len = 530, .dtype = DType::kFloat64, .masks = masks},
                        kSuite);
  }
}

TEST(BackwardSweep, Dropout) {
  for (double p : {0.1, 0.5, 1.0}) {
    for (WeightsMode weights : {WeightsMode::kNone, WeightsMode::kAverage, WeightsMode::kPerHead}) {
      for (DType dtype : kDTypes) {
        check_backward_case({.batch = 2,
                             .heads = 4,
                             .kv_heads = 2,
                             .q_len = 51,
                             .kv_len = 45,
                             .extra = 2,
                             .dtype = dtype,
                             .masks = {{.kind = kAdditive, .dims = "ls"}, {.kind = kCausal}},
                             .weights = weights,
                             .dropout_p = p},
                            kSuite);
      }
    }
  }
  check_backward_case({.heads = 1, .kv_heads = 1, .q_len = 20, .kv_len = 600, .dropout_p = 0.2},
                      kSuite);
}

TEST(BackwardSweep, RegimesAndStorage) {
  for (Regime regime : kRegimes) {
    for (Storage storage : kStorages) {
      check_backward_case({.batch = 2,
                           .heads = 2,
                           .kv_heads = 1,
                           .q_len = 33,
                           .kv_len = 70,
                           .regime = regime,
                           .masks = {{.kind = kCausal}},
                           .storage = storage},
                          kSuite);
    }
  }
}

}  // namespace
}  // namespace polyhead::oracle
