// Gradients through softcap and sinks, and under ALiBi and segments.
#include <vector>

#include <gtest/gtest.h>
#include "testing/backward_check.h"

namespace polyhead::oracle {
namespace {

constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat64};
constexpr auto kAdditive = Mask::Kind::kAdditive;
constexpr auto kCausal = Mask::Kind::kCausal;
constexpr const char* kSuite = "backward_modifiers";

TEST(BackwardModifiers, Softcap) {
  for (DType dtype : kDTypes) {
    for (Regime regime : {Regime::kSigma1, Regime::kPeaked, Regime::kAllEqual}) {
      for (double softcap : {0.5, 5.0, 1e6}) {
        for (WeightsMode weights : {WeightsMode::kNone, WeightsMode::kPerHead}) {
          check_backward_case({.heads = 4,
                               .kv_heads = 2,
                               .q_len = 51,
                               .kv_len = 75,
                               .extra = 1,
                               .dtype = dtype,
                               .regime = regime,
                               .masks = {{.kind = kAdditive, .dims = "ls"}, {.kind = kCausal}},
                               .weights = weights,
                               .dropout_p = 0.1,
                               .softcap = softcap},
                              kSuite);
        }
      }
    }
  }
}

TEST(BackwardModifiers, Sinks) {
  for (DType dtype : kDTypes) {
    for (int64_t kv_len : {0, 1, 40, 600}) {
      for (WeightsMode weights : {WeightsMode::kNone, WeightsMode::kAverage}) {
        check_backward_case({.batch = 2,
                             .heads = 4,
                             .kv_heads = 2,
                             .q_len = 51,
                             .kv_len = kv_len,
                             .extra = kv_len % 3,
                             .dtype = dtype,
                             .masks = {{.pattern = MaskPattern::kEmptyRows}},
                             .weights = weights,
                             .dropout_p = kv_len == 40 ? 0.2 : 0,
                             .sinks = true},
                            kSuite);
      }
    }
  }
}

TEST(BackwardModifiers, AlibiAndSegments) {
  for (DType dtype : kDTypes) {
    for (MaskPattern pattern : {MaskPattern::kRandom, MaskPattern::kPadding}) {
      for (Storage storage : {Storage::kContiguous, Storage::kGaps}) {
        check_backward_case(
            {.batch = 2,
             .heads = 4,
             .kv_heads = 2,
             .q_len = 51,
             .kv_len = 75,
             .dtype = dtype,
             .masks = {{.kind = Mask::Kind::kAlibi, .dims = "bh"},
                       {.kind = kAdditive, .dims = "h1s"},
                       {.kind = Mask::Kind::kSegments, .dims = "bs", .pattern = pattern}},
             .weights = WeightsMode::kAverage,
             .storage = storage},
            kSuite);
      }
    }
  }
}

}  // namespace
}  // namespace polyhead::oracle
