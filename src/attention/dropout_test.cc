// Which pairs dropout keeps: the definition, the kernels' vectors against it, and the statistics.
#include "attention/dropout.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <polyhead/attention.h>
#include <polyhead/error.h>
#include "base/philox.h"
#include "kernels/attention_dropout.h"
#include "simd/regions.h"
#include "testing/elements.h"
#include "testing/tolerance.h"

#define POLYHEAD_KERNEL_BODY "attention/dropout_test.body.h"
#include "simd/for_each_isa.h"

namespace polyhead::oracle {
namespace {

Tensor mask_of(const AttentionOptions& options, Shape shape) {
  Tensor keep(DType::kBool, shape);
  attention_dropout_mask(options, keep.view());
  return keep;
}
Tensor mask_of(const AttentionOptions& options, std::initializer_list<int64_t> shape) {
  return mask_of(options, Shape(shape.begin(), shape.size()));
}

bool at(const Tensor& keep, const Index& index) {
  return keep.data_as<bool>()[offset_of(keep, index)];
}

int64_t kept_of(const Tensor& keep) {
  int64_t kept = 0;
  for (int64_t n = 0; n < keep.numel(); ++n) kept += keep.data_as<bool>()[n];
  return kept;
}

constexpr uint64_t kSeed = 0x0123456789abcdef;

// The definition of docs/canonical_order.md, section 6, read once more.
TEST(DropoutMask, IsTheDefinition) {
  const AttentionOptions options{.dropout_p = 0.3, .seed = kSeed, .dropout_call = 77};
  const int64_t shape[] = {2, 3, 5, 21};
  const Tensor keep = mask_of(options, shape);
  for_each_index(shape, [&](const Index& index) {
    const auto head = static_cast<uint32_t>(index[0] * 3 + index[1]);
    const auto query = static_cast<uint32_t>(index[2]), key = static_cast<uint32_t>(index[3]);
    const auto words = philox({77, head, query, key / 8}, kSeed);
    const uint32_t word = words[key % 8 / 2];
    const uint32_t draw = key % 2 == 0 ? word & 0xffff : word >> 16;
    ASSERT_EQ(at(keep, index), draw >= 19661) << index_string(index, 4);  // 0.3 * 65536 = 19660.8
  });
}

TEST(DropoutMask, AnyStrides) {
  const AttentionOptions options{.dropout_p = 0.5, .seed = 3};
  const Tensor keep = mask_of(options, {2, 3, 5, 9});
  Tensor turned(DType::kBool, {9, 3, 2, 5});  // [S, H, B, L]
  const TensorView view = turned.view().transposed(0, 2).transposed(2, 3);
  attention_dropout_mask(options, view);
  for_each_index(keep.shape(), [&](const Index& index) {
    ASSERT_EQ(view.data_as<bool>()[offset_of(view, index)], at(keep, index));
  });
}

// p counts in steps of 2^-16, to the nearest; what is kept is scaled by what the step stands for.
TEST(DropoutMask, Quantisation) {
  struct Step {
    double p;
    uint32_t threshold;
  };
  for (const auto& [p, threshold] :
       {Step{0, 0}, Step{0x1p-18, 0}, Step{0x1p-17, 1}, Step{0.1, 6554}, Step{0.5, 32768},
        Step{1 - 0x1p-16, 65535}, Step{1 - 0x1p-18, 65536}, Step{1, 65536}}) {
    const Dropout dropout{p, kSeed, 0};
    EXPECT_EQ(dropout.threshold(), threshold) << p;
    const double kept = 1 - threshold / 65536.0;
    EXPECT_EQ(dropout.scale(), kept > 0 ? 1 / kept : 0) << p;
    const Tensor keep = mask_of({.dropout_p = p, .seed = kSeed}, {1, 2, 8, 64});
    EXPECT_EQ(kept_of(keep) == keep.numel(), threshold <= 1) << p;  // 1: 1024 pairs have luck
    EXPECT_EQ(kept_of(keep) == 0, threshold >= 65535) << p;
  }
}

// One draw decides under every p.
TEST(DropoutMask, WhatALargePKeepsASmallPKeeps) {
  const Tensor few = mask_of({.dropout_p = 0.8, .seed = 5}, {1, 2, 32, 65});
  const Tensor many = mask_of({.dropout_p = 0.2, .seed = 5}, {1, 2, 32, 65});
  for_each_index(few.shape(), [&](const Index& index) {
    EXPECT_TRUE(!at(few, index) || at(many, index)) << index_string(index, 4);
  });
  EXPECT_LT(kept_of(few), kept_of(many));
}

TEST(DropoutMask, Refusals) {
  const auto refused = [](const AttentionOptions& options, const TensorView& keep,
                          const std::string& expected) {
    try {
      attention_dropout_mask(options, keep);
      ADD_FAILURE() << "accepted; expected: " << expected;
    } catch (const InvalidArgument& error) {
      EXPECT_EQ(error.what(), expected);
    }
  };
  Tensor keep(DType::kBool, {1, 2, 3, 4}), numbers(DType::kFloat32, {1, 2, 3, 4});
  refused({}, {}, "attention_dropout_mask: keep: not given; must be bool [B, H, L, S]");
  refused({}, numbers,
          "attention_dropout_mask: keep: float32 [1, 2, 3, 4]; must be bool [B, H, L, S]");
  refused({}, keep.view().select(0, 0),
          "attention_dropout_mask: keep: bool [2, 3, 4]; must be bool [B, H, L, S]");
  refused({.dropout_p = 2}, keep,
          "attention_dropout_mask: dropout_p: got 2; must be between 0 and 1");
  // Nothing is read or written of these: a counter would come round.
  const int64_t zeros[] = {0, 0, 0, 0};
  const auto counts = [&](const std::vector<int64_t>& shape) {
    return TensorView(keep.data(), DType::kBool, shape, zeros);
  };
  const int64_t most = int64_t{1} << 32;
  const std::string need = "; must be 0 beyond 2^32 heads or queries, or 2^35 - 8 keys";
  refused({.dropout_p = 0.5}, counts({3, most / 2, 0, 1}),
          "attention_dropout_mask: dropout_p: got 0.5 with 3 x 2147483648 heads, 0 queries and 1 "
          "keys" +
              need);
  refused({.dropout_p = 0.5}, counts({1, 0, most + 1, 1}),
          "attention_dropout_mask: dropout_p: got 0.5 with 1 x 0 heads, 4294967297 queries and 1 "
          "keys" +
              need);
  refused({.dropout_p = 0.5}, counts({1, 1, 0, 8 * most - 7}),
          "attention_dropout_mask: dropout_p: got 0.5 with 1 x 1 heads, 0 queries and 34359738361 "
          "keys" +
              need);
  EXPECT_NO_THROW(attention_dropout_mask({.dropout_p = 0.5}, counts({1, 1, 0, 8 * most - 8})));
  EXPECT_NO_THROW(attention_dropout_mask({}, counts({1, 0, most + 1, 1})));
}

// The vectors of the kernels against the scalar definition, also where a counter is at its end.
template <class T, int NV>
void expect_vectors_keep_the_same(Isa isa, const Dropout& dropout, const TileDropout& tile,
                                  uint32_t granule) {
  const int width = NV * POLYHEAD_ON_ISA(isa, kLanes<T>);
  std::vector<T> probs(static_cast<size_t>(8 * width), std::numeric_limits<T>::quiet_NaN());
  POLYHEAD_ON_ISA(isa, drop_pairs_of<T, NV>(tile, granule, probs.data()));
  for (int n = 0; n < 8 * width; ++n) {
    const T p = probs[static_cast<size_t>(n)];
    const bool dropped = p == 0 && std::signbit(p);
    ASSERT_TRUE(dropped || std::isnan(p)) << p;
    const int64_t key = int64_t{granule} * 8 + n / width;
    ASSERT_EQ(!dropped, dropout.keeps(tile.head, int64_t{tile.first_query} + n % width, key))
        << isa_name(isa) << ", " << 8 * sizeof(T) << " bits, key " << key << ", lane " << n % width;
  }
}

TEST(DropoutVectors, KeepTheSamePairs) {
  for (const double p : {0.1, 0.5, 1.0}) {
    const Dropout dropout{p, kSeed, 0xfedcba98};
    for (const uint32_t extreme : {0U, 1U, 1000U, 0xfffffff0U, 0xffffffffU}) {
      const TileDropout tile{dropout.threshold(), dropout.seed, dropout.call, extreme, extreme};
      for (Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512, Isa::kNeon}) {
        if (!cpu_has(isa)) continue;
        expect_vectors_keep_the_same<float, 1>(isa, dropout, tile, extreme);
        expect_vectors_keep_the_same<float, 3>(isa, dropout, tile, 3);
        expect_vectors_keep_the_same<double, 1>(isa, dropout, tile, extreme);
        expect_vectors_keep_the_same<double, 2>(isa, dropout, tile, 3);
      }
    }
  }
  static_assert(kFirstAppendedKey == int64_t{kAppendedGranule} * 8);
}

// How far a count of independent events lies from its expectation, in standard deviations.
double deviations(int64_t count, int64_t trials, double chance) {
  const auto n = static_cast<double>(trials);
  return std::abs(static_cast<double>(count) - n * chance) / std::sqrt(n * chance * (1 - chance));
}

constexpr double kChances[] = {0x1p-16, 0x1p-6, 0.25, 0.5, 0.875, 1 - 0x1p-16};  // exact steps
constexpr int64_t kShape[] = {2, 4, 128, 256};

TEST(DropoutStatistics, TheShareOfDroppedPairsIsP) {
  for (double p : kChances) {
    for (uint64_t seed : {uint64_t{0}, uint64_t{1}, kSeed}) {
      const Tensor keep = mask_of({.dropout_p = p, .seed = seed}, kShape);
      EXPECT_LE(deviations(kept_of(keep), keep.numel(), 1 - p), kDeviations) << p << ", " << seed;
    }
  }
}

// In every draw of a counter, in every head, for every query and every key.
TEST(DropoutStatistics, TheShareIsPInEveryPlace) {
  const Tensor keep = mask_of({.dropout_p = 0.25, .seed = kSeed}, kShape);
  std::vector<int64_t> by_draw(8), by_head(8), by_query(128), by_key(256);
  for_each_index(kShape, [&](const Index& index) {
    const bool kept = at(keep, index);
    by_draw[static_cast<size_t>(index[3] % 8)] += kept;
    by_head[static_cast<size_t>(index[0] * 4 + index[1])] += kept;
    by_query[static_cast<size_t>(index[2])] += kept;
    by_key[static_cast<size_t>(index[3])] += kept;
  });
  for (const auto& counts : {by_draw, by_head, by_query, by_key}) {
    const int64_t trials = keep.numel() / static_cast<int64_t>(counts.size());
    for (int64_t count : counts) EXPECT_LE(deviations(count, trials, 0.75), kDeviations);
  }
}

// The correlation of two masks, in its standard deviations: 0 if their bits are independent.
double correlation(const ConstTensorView& a, const ConstTensorView& b, double chance) {
  double sum = 0;
  for_each_index(a.shape(), [&](const Index& index) {
    const auto excess = [&](const ConstTensorView& keep) {
      return (keep.data_as<bool>()[offset_of(keep, index)] ? 1 : 0) - chance;
    };
    sum += excess(a) * excess(b);
  });
  const auto n = static_cast<double>(a.numel());
  return std::abs(sum) / (std::sqrt(n) * chance * (1 - chance));
}

TEST(DropoutStatistics, NeighboursAreIndependent) {
  for (double p : {0x1p-6, 0.25, 0.5, 0.875}) {
    const Tensor keep = mask_of({.dropout_p = p, .seed = kSeed}, kShape);
    struct Step {
      int dim;
      int64_t by;
    };
    for (const auto& [dim, by] : {Step{3, 1}, Step{3, 2}, Step{3, 7}, Step{3, 8}, Step{3, 64},
                                  Step{2, 1}, Step{2, 16}, Step{1, 1}, Step{1, 2}, Step{0, 1}}) {
      const int64_t rest = kShape[dim] - by;
      EXPECT_LE(
          correlation(keep.view().narrow(dim, 0, rest), keep.view().narrow(dim, by, rest), 1 - p),
          kDeviations)
          << "p " << p << ", " << by << " apart in dimension " << dim;
    }
  }
}

TEST(DropoutStatistics, SeedsAndCallsAreIndependent) {
  for (double p : {0x1p-6, 0.25, 0.5, 0.875}) {
    const Tensor keep = mask_of({.dropout_p = p, .seed = kSeed, .dropout_call = 9}, kShape);
    struct Other {
      uint64_t seed;
      uint32_t call;
    };
    for (const auto& [seed, call] :
         {Other{kSeed + 1, 9}, Other{kSeed ^ (uint64_t{1} << 63), 9}, Other{9, 9}, Other{kSeed, 8},
          Other{kSeed, 10}, Other{kSeed, 9 | 1U << 31}}) {
      const Tensor other = mask_of({.dropout_p = p, .seed = seed, .dropout_call = call}, kShape);
      EXPECT_LE(correlation(keep, other, 1 - p), kDeviations)
          << "p " << p << ", seed " << seed << ", call " << call;
    }
  }
}

}  // namespace
}  // namespace polyhead::oracle
