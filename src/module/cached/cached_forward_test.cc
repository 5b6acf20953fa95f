// Prefill and decode through a module give the bits of one pass over the whole sequences: in any
// pieces and pages, on any number of threads, on every instruction set, with all that stands
// between projection and scores.
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include "module/cached/decoder_beside_one_pass.h"
#include "testing/machine.h"

namespace polyhead::oracle {
namespace {

using Config = MultiheadAttention::Config;

struct Kind {
  std::string name;
  Config config;
};

// Heads of whole vectors and of others, all projections packed and not.
std::vector<Kind> kinds(DType dtype) {
  const Config plain{
      .embed_dim = 40, .num_heads = 4, .layout = Layout::kBatchFirst, .dtype = dtype};
  Config grouped = plain, bare = plain, turned = plain, scaled = plain;
  grouped.num_kv_heads = 2;
  grouped.head_dim = 16;
  grouped.qk_norm = true;
  grouped.rope = {.pairs = RopePairs::kHalves};
  bare.bias = false;
  bare.head_dim = 32;
  bare.layout = Layout::kSequenceFirst;
  turned.rope = {.pairs = RopePairs::kInterleaved, .rotary_dim = 6};
  turned.layout = Layout::kSequenceFirst;
  scaled.num_kv_heads = 1;
  scaled.head_dim = 24;
  scaled.rope = {.pairs = RopePairs::kHalves, .scaling = RopeScaling::kLlama3, .factor = 8};
  return {{"plain", plain},
          {"grouped, norm, halves", grouped},
          {"wide, sequence first", bare},
          {"neighbours, sequence first", turned},
          {"one key head, scaled", scaled}};
}

KvCache::Config cache_for(const Config& config, int64_t batch, int64_t page_len, int64_t most) {
  KvCache::Config cached =
      MultiheadAttention(config).cache_config(batch, batch * ((most + page_len - 1) / page_len));
  cached.page_len = page_len;
  return cached;
}

class CachedForward : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(DTypes, CachedForward,
                         ::testing::Values(DType::kFloat32, DType::kFloat64));

TEST_P(CachedForward, HasTheBitsOfOnePassInAnyPiecesAndPages) {
  constexpr int64_t kLen = 100;
  std::vector<std::vector<int64_t>> pieces = {
      {kLen}, {60, 40}, {1, 31, 1, 32, 33, 2}, std::vector<int64_t>(kLen, 1)};
  for (const auto& [name, config] : kinds(GetParam())) {
    for (const int64_t page_len : {32, 64, 128}) {
      for (const auto& counts : pieces) {
        DecoderBesideOnePass decoder(config, cache_for(config, 3, page_len, kLen), kLen);
        for (const int64_t count : counts) {
          decoder.step(count, name + ", pages of " + std::to_string(page_len));
        }
      }
    }
  }
}

TEST_P(CachedForward, OnEveryInstructionSetAndThread) {
  constexpr int64_t kLen = 70;
  for (const auto& [name, config] : kinds(GetParam())) {
    for_each_isa([&, what = name, with = config](const std::string& isa) {
      for (const int n : {1, 2, 5}) {
        const Threads threads(n);
        DecoderBesideOnePass decoder(with, cache_for(with, 2, 32, kLen), kLen);
        for (const int64_t count : {50, 1, 1, 18}) {
          decoder.step(count, what + ", " + isa + ", threads " + std::to_string(n));
        }
      }
    });
  }
}

TEST_P(CachedForward, WritesOverItsQuery) {
  for (const auto& [name, config] : kinds(GetParam())) {
    const MultiheadAttention module = random_mha(config);
    KvCache apart(cache_for(config, 3, 32, 40)), over(apart.config());
    const bool batch_first = config.layout == Layout::kBatchFirst;
    const int64_t counts[] = {20, 0, 7};
    for (const ConstTensorView& lengths : {ConstTensorView{}, {counts, {3}}}) {
      const Tensor query = random_tensor(
          GetParam(), {batch_first ? 3 : 20, batch_first ? 20 : 3, config.embed_dim}, 1);
      const Tensor out = module.forward_cached(query, &apart, {.lengths = lengths});
      Tensor in_place(query.view());
      module.forward_cached_into(in_place, &over, {.lengths = lengths}, in_place);
      expect_same_bits(in_place, out, name);
    }
  }
}

// Of more keys than one chunk, whose sums several threads share out among them.
TEST_P(CachedForward, LongSequences) {
  constexpr int64_t kLen = 2100;
  const auto [name, config] = kinds(GetParam()).at(1);
  for (const int n : {1, 3}) {
    const Threads threads(n);
    DecoderBesideOnePass decoder(config, cache_for(config, 1, 256, kLen), kLen);
    for (const int64_t count : {1000, 23, 1, 1, 1, 1060, 1, 13}) decoder.step(count, name);
  }
}

TEST_P(CachedForward, SequencesOfUnequalLengths) {
  for (const auto& [name, config] : kinds(GetParam())) {
    DecoderBesideOnePass decoder(config, cache_for(config, 3, 32, 90), 90);
    const std::vector<std::vector<int64_t>> steps = {{40, 3, 17}, {1, 1, 1}, {0, 50, 1}, {1, 0, 0},
                                                     {0, 0, 0},   {9, 9, 9}, {33, 1, 2}};
    for (const auto& counts : steps) decoder.step(counts, name);
  }
}

TEST_P(CachedForward, OneSequenceOfABatch) {
  for (const auto& [name, config] : kinds(GetParam())) {
    DecoderBesideOnePass decoder(config, cache_for(config, 3, 32, 90), 90);
    decoder.step_alone(1, 33, name);
    decoder.step_alone(2, 5, name);
    decoder.step({4, 1, 1}, name);
    decoder.step_alone(1, 1, name);
    decoder.cut(1, 0);
    decoder.step_alone(1, 60, name);
    decoder.step(1, name);
  }
}

TEST_P(CachedForward, GuessesAreTakenBack) {
  for (const auto& [name, config] : kinds(GetParam())) {
    DecoderBesideOnePass decoder(config, cache_for(config, 2, 32, 80), 80);
    decoder.step(40, name);
    decoder.step(6, name);
    decoder.cut(0, 41);
    decoder.cut(1, 44);
    decoder.step({6, 1}, name);
  }
}

TEST_P(CachedForward, AWindowForgets) {
  for (auto& [name, config] : kinds(GetParam())) {
    KvCache::Config cached = cache_for(config, 2, 32, 96);
    cached.window = 20;
    DecoderBesideOnePass decoder(config, cached, 200);
    decoder.step(45, name);
    for (int i = 0; i < 60; ++i) decoder.step(1, name);
    decoder.step({17, 2}, name);
    decoder.step({0, 30}, name);
    EXPECT_GT(decoder.cache.first_kept(0), 0);
  }
}

TEST_P(CachedForward, EachOptionChangesTheAnswer) {
  std::vector<Tensor> results;
  const Tensor x = random_tensor(GetParam(), {1, 40, 40}, 1);
  for (auto [name, config] : kinds(GetParam())) {
    if (config.layout != Layout::kBatchFirst) continue;
    for (const int64_t window : {0, 7}) {
      const MultiheadAttention module = random_mha(config);
      KvCache::Config cached = cache_for(config, 1, 32, 64);
      cached.window = window;
      KvCache cache(cached);
      results.push_back(module.forward_cached(x, &cache));
    }
  }
  for (size_t i = 0; i < results.size(); ++i) {
    for (size_t j = 0; j < i; ++j) EXPECT_FALSE(compare_bits(results[i], results[j]).ok) << i << j;
  }
}

}  // namespace
}  // namespace polyhead::oracle
