// A function of the caller's between scores and softmax: forward, backward, blocks that it leaves
// out.
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <polyhead/error.h>
#include "testing/attention_check.h"
#include "testing/backward_check.h"
#include "testing/compare.h"
#include "testing/elements.h"
#include "testing/machine.h"
#include "testing/packed_case.h"
#include "testing/score_mods.h"

namespace polyhead::oracle {
namespace {

constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat64};
constexpr auto kCausal = Mask::Kind::kCausal;

struct FirstKeys {
  template <class T>
  T operator()(T score, int, int, int, int key) const {
    return key < 50 ? score : -std::numeric_limits<T>::infinity();
  }
  template <class T>
  T derivative(T, int, int, int, int) const {
    return 1;
  }
};

AttentionCase usual(DType dtype) {
  return {.batch = 2,
          .heads = 4,
          .kv_heads = 2,
          .q_len = 60,
          .kv_len = 141,
          .head_dim = 12,
          .v_head_dim = 20,
          .extra = 1,
          .dtype = dtype};
}

std::vector<AttentionCase> cases(DType dtype, const ScoreMod& mod) {
  AttentionCase plain = usual(dtype), masked = plain, all = plain;
  masked.masks = {{.kind = kCausal, .align = CausalAlign::kBottomRight}, {.dims = "ls"}};
  masked.weights = WeightsMode::kAverage;
  all.masks = {{.kind = Mask::Kind::kAdditive, .dims = "hls"}, {.kind = Mask::Kind::kAlibi}};
  all.weights = WeightsMode::kPerHead;
  all.softcap = 2;
  all.sinks = true;
  all.dropout_p = 0.1;
  all.storage = Storage::kColumns;
  std::vector<AttentionCase> result;
  for (AttentionCase spec : {plain, masked, all}) {
    for (int64_t q_len : {1, 3, 60}) {
      spec.q_len = q_len;
      spec.score_mod = mod;
      result.push_back(spec);
    }
  }
  return result;
}

TEST(AttentionScoreMod, AgainstTheReference) {
  const Slopes slopes;
  const Curved curved;
  const CurvedInBlocks blocks;
  for (DType dtype : kDTypes) {
    for (const ScoreMod& mod : {per_score(slopes), per_score(curved), per_score(blocks)}) {
      for (const AttentionCase& spec : cases(dtype, mod)) check_case(spec, "score_mod");
    }
  }
  EXPECT_GT(blocks.empty, 0);
}

TEST(AttentionScoreMod, GradientsAgainstTheReference) {
  const Slopes slopes;
  const Curved curved;
  const CurvedInBlocks blocks;
  for (DType dtype : kDTypes) {
    for (const ScoreMod& mod : {per_score(slopes), per_score(curved), per_score(blocks)}) {
      for (const AttentionCase& spec : cases(dtype, mod)) {
        check_backward_case(spec, "backward_score_mod");
      }
    }
  }
}

class AttentionScoreModBits : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(DTypes, AttentionScoreModBits,
                         ::testing::Values(DType::kFloat32, DType::kFloat64));

TEST_P(AttentionScoreModBits, WhatIsSaidOfBlocksChangesNothing) {
  const Curved curved;
  const CurvedInBlocks blocks;
  for (AttentionCase spec : cases(GetParam(), per_score(curved))) {
    const AttentionProblem without(spec);
    spec.score_mod = per_score(blocks);
    const AttentionProblem with(spec);
    for_each_kernel(with.call(), [&](const std::string& plan, const std::string& what) {
      const AttentionRun asked = run_attention_case(with.call(), plan);
      expect_same_run(asked, run_attention_case(without.call(), plan), what);
      const Threads seven(7);
      expect_same_run(run_attention_case(with.call(), plan), asked, what + ", seven threads");
    });
  }
}

// Hidden by the function, NaN reaches nothing.
TEST_P(AttentionScoreModBits, HiddenNumbersMayBeNan) {
  const FirstKeys first;
  AttentionCase spec = usual(GetParam());
  spec.score_mod = per_score(first);
  BackwardProblem clean(spec), poisoned(spec);
  for (const GuardedTensor* tensor : {&poisoned.problem.key, &poisoned.problem.value}) {
    fill(tensor->view().narrow(2, 50, spec.kv_len - 50), std::numeric_limits<double>::quiet_NaN());
  }
  for (int64_t rows : {2, 60}) {
    for_each_isa([&](const std::string& isa) {
      const auto forward = [&](const BackwardProblem& problem) {
        AttentionCall call = problem.problem.call();
        call.query = call.query.narrow(2, 0, rows);
        return run_attention_case(call);
      };
      expect_same_run(forward(poisoned), forward(clean), isa);
    });
  }
  for_each_backward(clean, [&](const std::string& plan, const std::string& what) {
    expect_same_gradients(run_backward_case(poisoned, plan), run_backward_case(clean, plan), what);
  });
}

// What a mask of ours adds or hides, done by a function.
TEST_P(AttentionScoreModBits, AsTheMaskThatDoesTheSame) {
  const Slopes slopes;
  const FirstKeys first;
  BackwardProblem problem(usual(GetParam()));
  Tensor table(GetParam(), {2, 4});  // [B, H]
  fill_with(table, [](const Index& at) {
    return static_cast<double>(at[1] + 1) * 0.125 + static_cast<double>(at[0]);
  });
  const int32_t lengths[] = {50, 50};
  const std::pair<Mask, ScoreMod> pairs[] = {
      {Mask::alibi(table), per_score(slopes)},
      {Mask::key_lengths({lengths, {2}}), per_score(first)},
  };
  for (const auto& [mask, mod] : pairs) {
    AttentionCall masked = problem.problem.call(), modified = masked;
    masked.masks = {&mask, 1};
    modified.score_mod = mod;
    for_each_isa([&](const std::string& isa) {
      problem.forward = run_attention_case(masked);
      expect_same_run(run_attention_case(modified), problem.forward, isa);
      expect_same_gradients(run_backward(modified, problem.inputs()),
                            run_backward(masked, problem.inputs()), isa);
    });
  }
}

TEST_P(AttentionScoreModBits, PackedSequencesCountFromTheirStart) {
  const Slopes slopes;
  AttentionCase spec = usual(GetParam());
  spec.score_mod = per_score(slopes);
  for (const Lengths& lengths : some_lengths()) {
    spec.lengths = lengths;
    const AttentionProblem packed(spec);
    const AttentionCall call = packed.call();
    const AttentionRun all = run_attention_case(call);
    for (int64_t n = 0; n < call.num_sequences(); ++n) {
      std::vector<Mask> masks;
      const Sequence of = call.sequence(n);
      const AttentionRun alone = run_attention_case(sequence_alone(call, n, &masks));
      expect_same_bits(alone.out.view(), all.out.view().narrow(2, of.q_begin, of.q_len), "packed");
    }
  }
}

// What the public functions take arrives, with all else that changes scores.
TEST(AttentionScoreModCall, AsThePublicFunctionsTakeIt) {
  const Curved curved;
  AttentionCase spec = usual(DType::kFloat32);
  spec.extra = 0;
  spec.score_mod = per_score(curved);
  spec.softcap = 1.5;
  spec.sinks = true;
  const BackwardProblem problem(spec);
  AttentionOptions options;
  options.softcap = spec.softcap;
  options.score_mod = spec.score_mod;
  options.sinks = problem.problem.sinks.view();
  GuardedTensor out(spec.dtype, {spec.batch, spec.heads, spec.q_len, spec.v_head_dim});
  const auto [query, key, value] = std::array{
      problem.problem.query.view(), problem.problem.key.view(), problem.problem.value.view()};
  attention_forward(query, key, value, options, {.out = out.view()});
  expect_same_bits(out.view(), problem.forward.out.view(), "out");
  const GuardedTensor d_query(spec.dtype, query.shape()), d_sinks(spec.dtype, {spec.heads});
  attention_backward(query, key, value, options, problem.inputs(),
                     {.d_query = d_query.view(), .d_sinks = d_sinks.view()});
  const BackwardRun run = run_backward_case(problem);
  expect_same_bits(d_query.view(), run.d_query.view(), "d_query");
  expect_same_bits(d_sinks.view(), run.d_sinks.view(), "d_sinks");
}

#if defined(__x86_64__) && !defined(__AVX2__)
// The same function, compiled for every x86-64 and for AVX2.
TEST(AttentionScoreModLoops, HaveTheSameBitsForEitherCpu) {
  using namespace score_mod_detail;
  if (!__builtin_cpu_supports("avx2")) GTEST_SKIP() << "no AVX2";
  const Curved curved{30};
  void* context = const_cast<Curved*>(&curved);
  for (DType dtype : kDTypes) {
    Tensor scores(dtype, {11, 23});
    fill_with(scores, [](const Index& index) {
      return static_cast<double>((37 * index[0] + 11 * index[1]) % 101) / 25 - 2;
    });
    for (const std::array<int64_t, 2> strides : {std::array<int64_t, 2>{23, 1}, {1, 11}}) {
      Tensor plain(scores), avx2(scores), d_plain(scores), d_avx2(scores);
      const auto block = [&](Tensor& tensor) {
        return ScoreBlock{tensor.data(), dtype, 0, 1, 5, 9, 11, 23, strides[0], strides[1]};
      };
      Compiled<Curved>::backward(block(plain), block(d_plain), context);
      CompiledForAvx2<Curved>::backward(block(avx2), block(d_avx2), context);
      EXPECT_TRUE(expect_same_bits(d_avx2, d_plain, "backward"));
      Compiled<Curved>::forward(block(plain), context);
      CompiledForAvx2<Curved>::forward(block(avx2), context);
      EXPECT_TRUE(expect_same_bits(avx2, plain, "forward"));
      EXPECT_FALSE(compare_bits(plain, scores).ok);
    }
  }
}
#endif

TEST(AttentionScoreModErrors, GradientsNeedBackward) {
  const auto forward_alone = [](auto score, int, int, int, int) { return score; };
  const Tensor x(DType::kFloat32, {1, 1, 2, 4});
  Tensor out(DType::kFloat32, {1, 1, 2, 4}), lse(DType::kFloat32, {1, 1, 2});
  AttentionOptions options;
  options.score_mod = per_score(forward_alone);
  attention_forward(x, x, x, options, {.out = out, .lse = lse});
  try {
    attention_backward(x, x, x, options, {.out = x, .lse = lse, .d_out = x}, {.d_query = out});
    ADD_FAILURE() << "accepted";
  } catch (const Unsupported& error) {
    EXPECT_STREQ(error.what(),
                 "attention_backward: score_mod.backward: not given; needed for gradients");
  }
}

}  // namespace
}  // namespace polyhead::oracle
