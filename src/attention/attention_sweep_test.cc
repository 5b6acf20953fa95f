// The op against the double reference over shapes, heads, masks, options and layouts, on every
// instruction set and plan.
#include <gtest/gtest.h>
#include "testing/attention_check.h"

namespace polyhead::oracle {
namespace {

constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat64};
constexpr auto kCausal = Mask::Kind::kCausal;
constexpr auto kAdditive = Mask::Kind::kAdditive;

// Around 8 and 16 lanes, the 8 keys of a granule, and the 48, 24 and 16 queries of a tile.
constexpr int64_t kLengths[] = {0, 1, 2, 7, 8, 9, 15, 16, 17, 23, 24, 25, 47, 48, 49, 51, 99};

TEST(AttentionSweep, QueryLengths) {
  for (DType dtype : kDTypes) {
    for (int64_t q_len : kLengths) {
      check_case({.q_len = q_len, .kv_len = 19, .dtype = dtype}, "sweep");
    }
    check_case({.heads = 1, .kv_heads = 1, .q_len = 509, .kv_len = 11, .dtype = dtype}, "sweep");
  }
}

TEST(AttentionSweep, KeyLengths) {
  for (DType dtype : kDTypes) {
    for (int64_t kv_len : kLengths) {
      check_case({.q_len = 18, .kv_len = kv_len, .dtype = dtype}, "sweep");
    }
    // Key blocks of 64, canonical chunks of 1024.
    for (int64_t kv_len : {63, 64, 65, 127, 128, 129, 509, 1023, 1024, 1025, 2047, 2048, 2049}) {
      check_case({.heads = 1,
                  .kv_heads = 1,
                  .q_len = 3,
                  .kv_len = kv_len,
                  .head_dim = 8,
                  .v_head_dim = 8,
                  .dtype = dtype,
                  .weights = WeightsMode::kPerHead},
                 "sweep");
    }
  }
}

TEST(AttentionSweep, HeadDims) {
  for (DType dtype : kDTypes) {
    for (int64_t head_dim : {1, 2, 7, 8, 20, 36, 40, 64, 80, 96, 128, 256}) {
      check_case({.heads = 1,
                  .kv_heads = 1,
                  .q_len = 17,
                  .kv_len = 21,
                  .head_dim = head_dim,
                  .v_head_dim = head_dim,
                  .dtype = dtype},
                 "sweep");
      check_case({.heads = 1,
                  .kv_heads = 1,
                  .q_len = 3,
                  .kv_len = 21,
                  .head_dim = 16,
                  .v_head_dim = head_dim,
                  .dtype = dtype},
                 "sweep");
      check_case({.heads = 1,
                  .kv_heads = 1,
                  .q_len = 3,
                  .kv_len = 21,
                  .head_dim = head_dim,
                  .v_head_dim = 5,
                  .dtype = dtype},
                 "sweep");
    }
    check_case({.head_dim = 8, .v_head_dim = 0, .dtype = dtype}, "sweep");
    check_case({.head_dim = 0, .v_head_dim = 8, .dtype = dtype}, "sweep");
  }
}

TEST(AttentionSweep, BatchesAndHeads) {
  struct Heads {
    int64_t batch, heads, kv_heads;
  };
  for (DType dtype : kDTypes) {
    for (const auto& [batch, heads, kv_heads] :
         {Heads{0, 2, 2}, Heads{2, 0, 1}, Heads{3, 1, 1}, Heads{2, 5, 5}, Heads{2, 8, 2},
          Heads{1, 6, 1}, Heads{2, 12, 4}, Heads{17, 2, 1}}) {
      for (WeightsMode weights :
           {WeightsMode::kNone, WeightsMode::kAverage, WeightsMode::kPerHead}) {
        check_case({.batch = batch,
                    .heads = heads,
                    .kv_heads = kv_heads,
                    .q_len = 7,
                    .kv_len = 10,
                    .dtype = dtype,
                    .weights = weights},
                   "sweep");
      }
    }
  }
}

TEST(AttentionSweep, Storages) {
  for (DType dtype : kDTypes) {
    for (Storage storage : kStorages) {
      for (WeightsMode weights : {WeightsMode::kAverage, WeightsMode::kPerHead}) {
        check_case({.batch = 2,
                    .heads = 4,
                    .q_len = 17,
                    .kv_len = 27,
                    .head_dim = 20,
                    .v_head_dim = 12,
                    .dtype = dtype,
                    .masks = {{.dims = "bhls"}},
                    .weights = weights,
                    .storage = storage},
                   "sweep");
      }
    }
  }
}

TEST(AttentionSweep, ExtraColumns) {
  for (DType dtype : kDTypes) {
    for (int64_t extra : {1, 2, 8}) {
      for (int64_t kv_len : {0, 1, 8, 13, 1024}) {
        check_case({.batch = 2,
                    .heads = 4,
                    .q_len = 4,
                    .kv_len = kv_len,
                    .extra = extra,
                    .dtype = dtype,
                    .masks = {{.dims = "b11s", .pattern = MaskPattern::kPadding}},
                    .weights = WeightsMode::kAverage},
                   "sweep");
      }
    }
    check_case({.q_len = 6,
                .kv_len = 9,
                .extra = 2,
                .dtype = dtype,
                .masks = {{.pattern = MaskPattern::kEmptyRows}, {.kind = kCausal}},
                .weights = WeightsMode::kPerHead},
               "sweep");
  }
}

TEST(AttentionSweep, Scales) {
  for (DType dtype : kDTypes) {
    for (double scale : {0.0, 1.0, -0.5, 0.1, 3.0}) {
      check_case({.q_len = 9, .kv_len = 30, .dtype = dtype, .scale = scale}, "sweep");
    }
  }
}

TEST(AttentionMasks, EveryShapeOfEveryKind) {
  for (const char* dims : {"ls", "1s", "l1", "11", "hls", "1ls", "h1s", "hl1", "bhls", "b11s",
                           "b1ls", "1hls", "bh1s", "b1l1", "1111"}) {
    for (MaskSense sense : {MaskSense::kExcluded, MaskSense::kIncluded}) {
      check_case({.batch = 2,
                  .heads = 4,
                  .kv_heads = 2,
                  .q_len = 19,
                  .kv_len = 37,
                  .masks = {{.dims = dims, .sense = sense}},
                  .weights = WeightsMode::kAverage},
                 "masks");
    }
    for (DType dtype : kDTypes) {
      check_case({.batch = 2,
                  .heads = 2,
                  .q_len = 19,
                  .kv_len = 37,
                  .dtype = dtype,
                  .masks = {{.kind = kAdditive, .dims = dims, .dtype = dtype}}},
                 "masks");
    }
  }
}

TEST(AttentionMasks, AdditiveTypesAndFactors) {
  for (DType of : {DType::kFloat32, DType::kFloat64, DType::kBool, DType::kInt32, DType::kInt64}) {
    for (double factor : {1.0, -2.0, -1e5}) {
      for (DType dtype : kDTypes) {
        check_case({.q_len = 10,
                    .kv_len = 21,
                    .dtype = dtype,
                    .masks = {{.kind = kAdditive, .dims = "ls", .dtype = of, .factor = factor}},
                    .weights = WeightsMode::kPerHead},
                   "masks");
      }
    }
  }
}

TEST(AttentionMasks, Causal) {
  struct Lengths {
    int64_t q_len, kv_len;
  };
  for (DType dtype : kDTypes) {
    for (CausalAlign align : {CausalAlign::kTopLeft, CausalAlign::kBottomRight}) {
      for (const auto& [q_len, kv_len] :
           {Lengths{1, 1}, Lengths{7, 7}, Lengths{16, 16}, Lengths{49, 49}, Lengths{97, 97},
            Lengths{5, 70}, Lengths{70, 5}, Lengths{1, 40}, Lengths{40, 1}, Lengths{48, 1030}}) {
        check_case({.heads = 1,
                    .kv_heads = 1,
                    .q_len = q_len,
                    .kv_len = kv_len,
                    .dtype = dtype,
                    .masks = {{.kind = kCausal, .align = align}},
                    .weights = WeightsMode::kAverage},
                   "masks");
      }
    }
  }
}

TEST(AttentionMasks, Combinations) {
  const MaskSpec padding = {.dims = "b11s", .pattern = MaskPattern::kPadding};
  const MaskSpec causal = {.kind = kCausal};
  const MaskSpec boolean = {.dims = "ls", .sense = MaskSense::kIncluded};
  const MaskSpec additive = {.kind = kAdditive, .dims = "bhls", .density = 0.1};
  const MaskSpec other = {.kind = kAdditive, .dims = "b11s", .density = 0, .factor = 0.5};
  for (DType dtype : kDTypes) {
    for (EmptyRow empty_rows : {EmptyRow::kZero, EmptyRow::kNan}) {
      for (const std::vector<MaskSpec>& masks :
           {std::vector{padding, causal}, std::vector{padding, boolean},
            std::vector{additive, other}, std::vector{additive, causal, padding},
            std::vector{other, boolean, additive, causal, padding}}) {
        check_case({.batch = 3,
                    .heads = 2,
                    .q_len = 33,
                    .kv_len = 50,
                    .dtype = dtype,
                    .masks = masks,
                    .empty_rows = empty_rows,
                    .weights = WeightsMode::kPerHead},
                   "masks");
      }
    }
  }
}

TEST(AttentionMasks, EmptyRows) {
  for (DType dtype : kDTypes) {
    for (EmptyRow empty_rows : {EmptyRow::kZero, EmptyRow::kNan}) {
      for (WeightsMode weights :
           {WeightsMode::kNone, WeightsMode::kAverage, WeightsMode::kPerHead}) {
        for (Mask::Kind kind : {Mask::Kind::kBoolean, kAdditive}) {
          check_case({.q_len = 20,
                      .kv_len = 41,
                      .dtype = dtype,
                      .masks = {{.kind = kind, .pattern = MaskPattern::kEmptyRows, .dtype = dtype}},
                      .empty_rows = empty_rows,
                      .weights = weights},
                     "masks");
        }
        check_case(
            {.q_len = 4, .kv_len = 0, .dtype = dtype, .empty_rows = empty_rows, .weights = weights},
            "masks");
      }
    }
  }
}

}  // namespace
}  // namespace polyhead::oracle
