// Cases of the op drawn by RapidCheck, which shrinks what fails: shapes, masks, layouts, options.
#pragma once

#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include "testing/attention_case.h"
#include "testing/score_mods.h"

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

// Sizes, numbers and layout; no options.
inline AttentionCase any_shape() {
  AttentionCase spec;
  spec.kv_heads = between(1, 3);
  spec.heads = spec.kv_heads * between(1, 3);
  spec.batch = between(0, 3);
  spec.q_len = between(0, 60);
  spec.kv_len = between(0, 100);
  spec.head_dim = between(0, 40);
  spec.v_head_dim = between(0, 40);
  spec.dtype = one_of<DType>({DType::kFloat32, DType::kFloat64});
  spec.regime = one_of(std::vector<Regime>(std::begin(kRegimes), std::end(kRegimes)));
  spec.storage = one_of(std::vector<Storage>(std::begin(kStorages), std::end(kStorages)));
  spec.seed = static_cast<uint64_t>(between(0, 1 << 20));
  return spec;
}

// Whether hundreds of keys have as many scores. Where they have few, the roundings of a sum are not
// by chance but all alike, and grow with the number of keys, not with its root as budgets say.
inline bool scores_are_many(const AttentionCase& spec) {
  const bool normal = spec.regime == Regime::kNearUniform || spec.regime == Regime::kSigma1 ||
                      spec.regime == Regime::kPeaked;
  return normal && spec.head_dim > 0 && spec.scale != 0;
}

// Now and then more than one chunk of keys (512, 1024), tile of queries (48) or of dimensions.
inline void enlarge(AttentionCase* spec) {
  const int64_t which = between(0, 11);
  if (which == 0 && scores_are_many(*spec)) {
    spec->kv_len += between(400, 1100);
    spec->q_len = between(0, 10);
  } else if (which == 1) {
    spec->q_len += between(40, 150);
    spec->kv_len = between(0, 30);
  } else if (which == 2) {
    spec->head_dim += between(24, 100);
    spec->v_head_dim += between(24, 100);
    spec->batch = 1;
  }
}

// A packed batch of up to five sequences, some of them empty.
inline Lengths any_lengths(bool some_long) {
  Lengths lengths;
  for (int64_t n = between(1, 5); n > 0; --n) {
    const bool is_long = some_long && between(0, 9) == 0;
    lengths.queries.push_back(is_long ? between(0, 4) : between(0, 30));
    lengths.keys.push_back(is_long ? between(500, 1100) : between(0, 40));
  }
  lengths.dtype = one_of<DType>({DType::kInt32, DType::kInt64});
  return lengths;
}

inline void put_score_mod(AttentionCase* spec) {
  static const Slopes kSlopes;
  static const Curved kCurved;
  static const CurvedInBlocks kBlocks;
  switch (between(0, 6)) {
    case 0:
      spec->score_mod = per_score(kSlopes);
      spec->score_mod_name = "slopes";
      return;
    case 1:
      spec->score_mod = per_score(kCurved);
      spec->score_mod_name = "curved";
      return;
    case 2:
      spec->score_mod = per_score(kBlocks);
      spec->score_mod_name = "curved in blocks";
      return;
    default:
      return;
  }
}

// All options of the op together.
inline AttentionCase any_case() {
  AttentionCase spec = any_shape();
  spec.scale = one_of<std::optional<double>>({{}, {}, {}, {}, 0, -0.5, 1.5});
  enlarge(&spec);
  spec.extra = one_of<int64_t>({0, 0, 1, 2});
  if (between(0, 4) == 0) spec.lengths = any_lengths(scores_are_many(spec));
  spec.empty_rows = one_of<EmptyRow>({EmptyRow::kZero, EmptyRow::kNan});
  if (!spec.packed()) {
    spec.weights =
        one_of<WeightsMode>({WeightsMode::kNone, WeightsMode::kAverage, WeightsMode::kPerHead});
  }
  spec.dropout_p = one_of<double>({0, 0, 0, 0.1, 0.5, 1});
  spec.softcap = one_of<double>({0, 0, 3, 50});
  put_score_mod(&spec);
  spec.sinks = between(0, 3) == 0;
  for (int64_t n = one_of<int64_t>({0, 0, 1, 1, 2, 3}); n > 0; --n)
    spec.masks.push_back(any_mask());
  spec.with_rest = between(0, 1) == 0;
  spec.threads = static_cast<int>(between(1, 9));
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
