// Cases of the op drawn by RapidCheck, which shrinks what fails: shapes, masks, layouts, options.
#pragma once

#include <iterator>
#include <string>
#include <vector>

#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include "testing/attention_case.h"

namespace polyhead::oracle {

inline int64_t between(int64_t least, int64_t most) { return *rc::gen::inRange(least, most + 1); }

template <class T>
T one_of(const std::vector<T>& choices) {
  return *rc::gen::elementOf(choices);
}

inline MaskSpec any_mask() {
  static const std::vector<const char*> dims = {"ls",  "1s",  "l1",   "11",   "hls",  "1ls", "h1s",
                                                "hl1", "111", "bhls", "b11s", "b1ls", "1hls"};
  MaskSpec mask;
  using Kind = Mask::Kind;
  mask.kind = one_of<Kind>({Kind::kBoolean, Kind::kAdditive, Kind::kCausal, Kind::kWindow,
                            Kind::kKeyLengths, Kind::kAlibi, Kind::kSegments});
  mask.dims = one_of(dims);
  mask.pattern = one_of<MaskPattern>(
      {MaskPattern::kRandom, MaskPattern::kPadding, MaskPattern::kEmptyRows, MaskPattern::kOneKey});
  mask.density = one_of<double>({0, 0.1, 0.5, 0.95, 1});
  mask.sense = one_of<MaskSense>({MaskSense::kExcluded, MaskSense::kIncluded});
  mask.align = one_of<QueryOffset>({CausalAlign::kTopLeft, CausalAlign::kBottomRight, 9, -4});
  mask.left = one_of<int64_t>({Mask::kUnbounded, 0, 3, 20});
  mask.right = one_of<int64_t>({Mask::kUnbounded, 0, 3, 20});
  mask.dtype = one_of<DType>({DType::kFloat32, DType::kFloat64, DType::kInt32, DType::kBool});
  mask.factor = one_of<double>({1, -0.5, 3});
  return mask;
}

inline AttentionCase any_case() {
  AttentionCase spec;
  spec.kv_heads = between(1, 3);
  spec.heads = spec.kv_heads * between(1, 3);
  spec.batch = between(1, 3);
  spec.q_len = between(0, 60);
  spec.kv_len = between(0, 100);
  spec.head_dim = between(1, 40);
  spec.v_head_dim = between(1, 40);
  spec.extra = between(0, 2);
  spec.dtype = one_of<DType>({DType::kFloat32, DType::kFloat64});
  spec.regime = one_of(std::vector<Regime>(std::begin(kRegimes), std::end(kRegimes)));
  spec.storage = one_of(std::vector<Storage>(std::begin(kStorages), std::end(kStorages)));
  spec.empty_rows = one_of<EmptyRow>({EmptyRow::kZero, EmptyRow::kNan});
  spec.weights =
      one_of<WeightsMode>({WeightsMode::kNone, WeightsMode::kAverage, WeightsMode::kPerHead});
  spec.dropout_p = one_of<double>({0, 0, 0.1, 0.5, 1});
  spec.softcap = one_of<double>({0, 0, 3, 50});
  spec.sinks = between(0, 3) == 0;
  for (int64_t n = between(0, 3); n > 0; --n) spec.masks.push_back(any_mask());
  spec.seed = static_cast<uint64_t>(between(0, 1 << 20));
  return spec;
}

// GoogleTest failures inside `body`, so that RapidCheck sees them and shrinks.
template <class Body>
std::vector<std::string> failures_of(const Body& body) {
  ::testing::TestPartResultArray results;
  {
    const ::testing::ScopedFakeTestPartResultReporter reporter(
        ::testing::ScopedFakeTestPartResultReporter::INTERCEPT_ONLY_CURRENT_THREAD, &results);
    body();
  }
  std::vector<std::string> texts;
  for (int n = 0; n < results.size(); ++n) {
    if (results.GetTestPartResult(n).failed()) {
      texts.emplace_back(results.GetTestPartResult(n).message());
    }
  }
  return texts;
}

}  // namespace polyhead::oracle
