// What must hold of a module's forward bit for bit, and what a masked position may reach.
#include <cfenv>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <polyhead/multihead_attention.h>
#include <polyhead/runtime.h>
#include "module/module_test_tools.h"
#include "testing/compare.h"
#include "testing/machine.h"

namespace polyhead {
namespace {

using oracle::expect_same_bits;
using oracle::random_hidden;
using oracle::random_mha;
using oracle::random_tensor;
using oracle::Threads;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr int64_t kBatch = 5, kQLen = 67, kKvLen = 43, kEmbed = 48;

class ModuleProperty : public ::testing::TestWithParam<DType> {
 protected:
  DType dtype() const { return GetParam(); }
  MultiheadAttention::Config config() const {
    return {.embed_dim = kEmbed,
            .num_heads = 3,
            .layout = Layout::kBatchFirst,
            .add_bias_kv = true,
            .dtype = dtype()};
  }
  Tensor query() const { return random_tensor(dtype(), {kBatch, kQLen, kEmbed}, 1); }
  Tensor key() const { return random_tensor(dtype(), {kBatch, kKvLen, kEmbed}, 2); }
  Tensor value() const { return random_tensor(dtype(), {kBatch, kKvLen, kEmbed}, 3); }
};
INSTANTIATE_TEST_SUITE_P(DTypes, ModuleProperty,
                         ::testing::Values(DType::kFloat32, DType::kFloat64));

TEST_P(ModuleProperty, ThreadsDoNotMatter) {
  const MultiheadAttention module = random_mha(config());
  const Tensor q = query(), k = key(), v = value(), mask = random_hidden({kQLen, kKvLen}, 4);
  const ForwardOptions options{.attn_mask = mask.view(), .need_weights = WeightsMode::kAverage};
  std::vector<MultiheadAttention::Result> results;
  for (int n : {1, 2, 3, 7}) {
    const Threads threads(n);
    results.push_back(module.forward(q, k, v, options));
    const std::string what = std::to_string(n) + " threads";
    expect_same_bits(results.back().out, results.front().out, what);
    expect_same_bits(results.back().weights, results.front().weights, what);
  }
}

TEST_P(ModuleProperty, InstructionSetsDoNotMatter) {
  const MultiheadAttention module = random_mha(config());
  const Tensor q = query(), k = key(), v = value();
  std::vector<Tensor> results;
  for (const std::string& isa : oracle::isas_with_fma()) {
    const oracle::ForcedIsa forced(isa);
    results.push_back(module.forward(q, k, v, {.is_causal = true}).out);
    expect_same_bits(results.back(), results.front(), isa);
  }
}

// The caller's rounding mode is neither used nor changed.
TEST_P(ModuleProperty, TheFloatingPointEnvironmentDoesNotMatter) {
  const MultiheadAttention module = random_mha(config());
  const Tensor q = query(), k = key(), v = value();
  const Tensor expected = module.forward(q, k, v).out;
  for (const int mode : {FE_UPWARD, FE_TOWARDZERO}) {
    ASSERT_EQ(std::fesetround(mode), 0);
    const Tensor out = module.forward(q, k, v).out;
    EXPECT_EQ(std::fegetround(), mode);
    std::fesetround(FE_TONEAREST);
    expect_same_bits(out, expected, "rounding mode");
  }
}

TEST_P(ModuleProperty, BatchNeighboursDoNotMatter) {
  const MultiheadAttention module = random_mha(config());
  const Tensor q = query(), k = key(), v = value();
  const Tensor together = module.forward(q, k, v).out;
  for (int64_t b = 0; b < kBatch; ++b) {
    const Tensor alone =
        module.forward(q.view().narrow(0, b, 1), k.view().narrow(0, b, 1), v.view().narrow(0, b, 1))
            .out;
    expect_same_bits(alone, together.view().narrow(0, b, 1), "item " + std::to_string(b));
  }
}

TEST_P(ModuleProperty, OtherQueriesDoNotMatter) {
  const MultiheadAttention module = random_mha(config());
  const Tensor q = query(), k = key(), v = value();
  const Tensor all = module.forward(q, k, v).out;
  for (int64_t i : {int64_t{0}, int64_t{31}, kQLen - 1}) {
    const Tensor one = module.forward(q.view().narrow(1, i, 1), k, v).out;
    expect_same_bits(one, all.view().narrow(1, i, 1), "query " + std::to_string(i));
  }
}

TEST_P(ModuleProperty, WeightsDoNotMatter) {
  const MultiheadAttention module = random_mha(config());
  const Tensor q = query(), k = key(), v = value();
  const Tensor out = module.forward(q, k, v).out;
  for (const WeightsMode mode : {WeightsMode::kAverage, WeightsMode::kPerHead}) {
    expect_same_bits(module.forward(q, k, v, {.need_weights = mode}).out, out, "with weights");
  }
}

TEST_P(ModuleProperty, LayoutsAgree) {
  MultiheadAttention::Config sequence_first = config();
  sequence_first.layout = Layout::kSequenceFirst;
  const MultiheadAttention a = random_mha(config()), b = random_mha(sequence_first);
  const Tensor q = query(), k = key(), v = value(), hidden = random_hidden({kBatch, kKvLen}, 5);
  const ForwardOptions options{.key_padding_mask = hidden.view(),
                               .need_weights = WeightsMode::kPerHead};
  const auto turned = [](const Tensor& x) { return Tensor(x.view().transposed(0, 1)); };
  const MultiheadAttention::Result first = a.forward(q, k, v, options);
  const MultiheadAttention::Result second = b.forward(turned(q), turned(k), turned(v), options);
  expect_same_bits(second.out.view().transposed(0, 1), first.out, "sequence first");
  expect_same_bits(second.weights, first.weights, "sequence first");
  // The same memory seen through strides.
  const ConstTensorView seen = q.view().transposed(0, 1);
  const Tensor third =
      b.forward(seen, k.view().transposed(0, 1), v.view().transposed(0, 1), options).out;
  expect_same_bits(third, second.out, "strided");
}

TEST_P(ModuleProperty, UnbatchedIsABatchOfOne) {
  const MultiheadAttention module = random_mha(config());
  const Tensor q = query(), k = key(), v = value(), mask = random_hidden({3, kQLen, kKvLen}, 6);
  const Tensor padding = random_hidden({1, kKvLen}, 7);
  ForwardOptions options{.attn_mask = mask.view(),
                         .key_padding_mask = padding.view(),
                         .need_weights = WeightsMode::kPerHead};
  const MultiheadAttention::Result one = module.forward(
      q.view().narrow(0, 0, 1), k.view().narrow(0, 0, 1), v.view().narrow(0, 0, 1), options);
  options.key_padding_mask = padding.view().select(0, 0);
  const MultiheadAttention::Result unbatched =
      module.forward(q.view().select(0, 0), k.view().select(0, 0), v.view().select(0, 0), options);
  expect_same_bits(unbatched.out, one.out.view().select(0, 0), "out");
  expect_same_bits(unbatched.weights, one.weights.view().select(0, 0), "weights");
}

// One product for q, k and v; one for q and one for k and v; three: the same bits.
TEST_P(ModuleProperty, SharedInputsAreAsCopies) {
  const MultiheadAttention module = random_mha(config());
  const Tensor x = query(), y = x, z = x;
  const Tensor same = module.forward(x, x, x).out;
  expect_same_bits(module.forward(x, y, y).out, same, "key is value");
  expect_same_bits(module.forward(x, y, z).out, same, "three copies");
  expect_same_bits(module.forward(x, x, z).out, same, "query is key");
}

TEST_P(ModuleProperty, HiddenKeysReachNothing) {
  const MultiheadAttention module = random_mha(config());
  const Tensor q = query(), hidden = random_hidden({kBatch, kKvLen}, 8);
  Tensor k = key(), v = value();
  const ForwardOptions options{.key_padding_mask = hidden.view(),
                               .need_weights = WeightsMode::kPerHead};
  const MultiheadAttention::Result clean = module.forward(q, k, v, options);
  for (int64_t n = 0; n < kBatch * kKvLen; ++n) {
    if (!hidden.data_as<bool>()[n]) continue;
    oracle::fill(k.view().select(0, n / kKvLen).select(0, n % kKvLen), kNan);
    oracle::fill(v.view().select(0, n / kKvLen).select(0, n % kKvLen), kNan);
  }
  const MultiheadAttention::Result dirty = module.forward(q, k, v, options);
  expect_same_bits(dirty.out, clean.out, "out");
  expect_same_bits(dirty.weights, clean.weights, "weights");
}

TEST_P(ModuleProperty, TheFutureReachesNothing) {
  const MultiheadAttention module = random_mha(config());
  const Tensor q = query();
  Tensor x = q;
  const Tensor clean = module.forward(q, x, x, {.is_causal = true}).out;
  oracle::fill(x.view().narrow(1, 40, kQLen - 40), kNan);
  const Tensor dirty = module.forward(q, x, x, {.is_causal = true}).out;
  expect_same_bits(dirty.view().narrow(1, 0, 40), clean.view().narrow(1, 0, 40), "rows 0 to 39");
}

// Keys cut off and keys hidden give the same bits.
TEST_P(ModuleProperty, PaddingIsAsIfNotThere) {
  const MultiheadAttention module = random_mha(config());
  const Tensor q = query(), k = key(), v = value();
  Tensor hidden(DType::kBool, {kBatch, kKvLen});
  for (int64_t n = 0; n < hidden.numel(); ++n) hidden.data_as<bool>()[n] = n % kKvLen >= 29;
  const Tensor padded = module.forward(q, k, v, {.key_padding_mask = hidden.view()}).out;
  const Tensor cut = module.forward(q, k.view().narrow(1, 0, 29), v.view().narrow(1, 0, 29)).out;
  expect_same_bits(padded, cut, "29 of 43 keys");
}

TEST_P(ModuleProperty, EmptyRowsAreTheOutputBias) {
  MultiheadAttention::Config plain = config();
  plain.add_bias_kv = false;
  const MultiheadAttention module = random_mha(plain);
  const Tensor q = query(), k = key(), v = value();
  Tensor hidden(DType::kBool, {kBatch, kKvLen});
  for (int64_t n = 0; n < kKvLen; ++n) hidden.data_as<bool>()[kKvLen + n] = true;  // item 1
  ForwardOptions options{.key_padding_mask = hidden.view(), .need_weights = WeightsMode::kAverage};
  const MultiheadAttention::Result zero = module.forward(q, k, v, options);
  const ConstTensorView bias = module.state_dict().back().second;
  for (int64_t i = 0; i < kQLen; ++i) {
    expect_same_bits(zero.out.view().select(0, 1).select(0, i), bias, "the bias");
  }
  expect_same_bits(zero.weights.view().select(0, 1), Tensor(dtype(), {kQLen, kKvLen}), "zeros");
  options.empty_rows = EmptyRow::kNan;
  const MultiheadAttention::Result nan = module.forward(q, k, v, options);
  Tensor nans(dtype(), {kQLen, kKvLen}), nan_rows(dtype(), {kQLen, kEmbed});
  oracle::fill(nans, kNan);
  oracle::fill(nan_rows, kNan);
  expect_same_bits(nan.weights.view().select(0, 1), nans, "NaN weights");
  expect_same_bits(nan.out.view().select(0, 1), nan_rows, "NaN rows");
  expect_same_bits(nan.out.view().select(0, 0), zero.out.view().select(0, 0), "other items");
}

TEST_P(ModuleProperty, NoKeysIsTheOutputBiasUnderEitherOption) {
  MultiheadAttention::Config plain = config();
  plain.add_bias_kv = false;
  const MultiheadAttention module = random_mha(plain);
  const Tensor q = query(), none(dtype(), {kBatch, 0, kEmbed});
  const ConstTensorView bias = module.state_dict().back().second;
  for (const EmptyRow empty : {EmptyRow::kZero, EmptyRow::kNan}) {
    const MultiheadAttention::Result result =
        module.forward(q, none, none, {.need_weights = WeightsMode::kAverage, .empty_rows = empty});
    expect_same_bits(result.out.view().select(0, 0).select(0, 0), bias, "the bias");
    EXPECT_EQ(result.weights.shape_string(), "[5, 67, 0]");
  }
}

TEST_P(ModuleProperty, EmptyBatchesAndQueriesHaveEmptyResults) {
  const MultiheadAttention module = random_mha(config());
  const Tensor k = key(), none(dtype(), {0, kKvLen, kEmbed}), no_rows(dtype(), {kBatch, 0, kEmbed});
  const ForwardOptions options{.need_weights = WeightsMode::kPerHead};
  const MultiheadAttention::Result no_batch = module.forward(none, none, none, options);
  EXPECT_EQ(no_batch.out.shape_string(), "[0, 43, 48]");
  EXPECT_EQ(no_batch.weights.shape_string(), "[0, 3, 43, 44]");
  const MultiheadAttention::Result no_queries = module.forward(no_rows, k, k, options);
  EXPECT_EQ(no_queries.out.shape_string(), "[5, 0, 48]");
  EXPECT_EQ(no_queries.weights.shape_string(), "[5, 3, 0, 44]");
}

// Outputs of any strides are written where they say and nowhere else.
TEST_P(ModuleProperty, OutputsMayBeStrided) {
  const MultiheadAttention module = random_mha(config());
  const Tensor q = query(), k = key(), v = value();
  const ForwardOptions options{.need_weights = WeightsMode::kAverage};
  const MultiheadAttention::Result plain = module.forward(q, k, v, options);
  Tensor out(dtype(), {kQLen, kEmbed, kBatch, 2}), weights(dtype(), {kKvLen + 1, kQLen, 2, kBatch});
  oracle::fill(out, 7);
  oracle::fill(weights, 7);
  const TensorView out_view = out.view().select(3, 1).transposed(0, 2).transposed(1, 2);
  const TensorView weights_view = weights.view().select(2, 0).transposed(0, 2);
  module.forward_into(q, k, v, options, out_view, weights_view);
  expect_same_bits(out_view, plain.out, "out");
  expect_same_bits(weights_view, plain.weights, "weights");
  Tensor untouched(dtype(), {kQLen, kEmbed, kBatch});
  oracle::fill(untouched, 7);
  expect_same_bits(out.view().select(3, 0), untouched, "between the elements of out");
}

TEST_P(ModuleProperty, ManyThreadsMayCall) {
  const MultiheadAttention module = random_mha(config());
  const Tensor q = query(), k = key(), v = value();
  const Tensor alone = module.forward(q, k, v).out;
  std::vector<Tensor> results(4);
  std::vector<std::thread> callers;
  for (Tensor& result : results) {
    callers.emplace_back([&] {
      for (int i = 0; i < 5; ++i) result = module.forward(q, i % 2 ? k : Tensor(k), v).out;
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (const Tensor& result : results) expect_same_bits(result, alone, "in parallel");
}

// A host whose threads run other work while they wait: here, another forward of the same module.
TEST_P(ModuleProperty, AForwardMayRunWithinAForward) {
  const MultiheadAttention module = random_mha(config());
  const Tensor q = query(), k = key(), v = value(), other = random_tensor(dtype(), {2, 9, 48}, 9);
  const Tensor expected = module.forward(q, k, v).out;
  const Tensor expected_other = module.forward(other, other, other).out;
  struct Host {
    const MultiheadAttention* module;
    const Tensor* other;
    Tensor out;
    bool busy = false;
  } host{&module, &other, {}};
  const auto run = [](void* context, size_t count, ParallelTask task, void* argument) {
    Host& self = *static_cast<Host*>(context);
    if (!self.busy) {
      self.busy = true;
      self.out = self.module->forward(*self.other, *self.other, *self.other).out;
      self.busy = false;
    }
    for (size_t i = count; i-- > 0;) task(argument, i);
  };
  const Threads threads(2);
  lend_executor(run, &host);
  const Tensor out = module.forward(q, k, v).out;
  lend_executor(nullptr, nullptr);
  expect_same_bits(out, expected, "outer");
  expect_same_bits(host.out, expected_other, "inner");
}

TEST_P(ModuleProperty, EveryOptionChangesTheAnswer) {
  const MultiheadAttention module = random_mha(config());
  const Tensor q = query(), k = key(), v = value();
  const Tensor plain = module.forward(q, k, v).out;
  const Tensor attn = random_hidden({kQLen, kKvLen}, 4),
               padding = random_hidden({kBatch, kKvLen}, 5);
  const Tensor bias = random_tensor(dtype(), {1, 3, kQLen, 1}, 6);
  const ForwardOptions each[] = {{.attn_mask = attn.view()},
                                 {.attn_mask = bias.view()},
                                 {.key_padding_mask = padding.view()},
                                 {.is_causal = true},
                                 {.is_causal = true, .causal_align = CausalAlign::kBottomRight}};
  std::vector<Tensor> outs = {plain};
  for (const ForwardOptions& options : each) {
    outs.push_back(module.forward(q, k, v, options).out);
    for (size_t i = 0; i + 1 < outs.size(); ++i) {
      EXPECT_FALSE(oracle::compare_bits(outs[i], outs.back()).ok) << i;
    }
  }
  MultiheadAttention::Config with_zero = config();
  with_zero.add_zero_attn = true;
  EXPECT_FALSE(oracle::compare_bits(random_mha(with_zero).forward(q, k, v).out, plain).ok);
}

TEST_P(ModuleProperty, FromScratchIsTorchsModuleWithTheSameWeights) {
  FromScratchMultiHeadAttention scratch(kEmbed, 3, HeadWidth::kSplit, 11, dtype());
  MultiheadAttention::Config plain = config();
  plain.add_bias_kv = false;
  MultiheadAttention module(plain);
  Tensor weight(dtype(), {3 * kEmbed, kEmbed}), bias(dtype(), {3 * kEmbed});
  const auto dict = scratch.state_dict();
  for (size_t part = 0; part < 3; ++part) {
    const auto start = static_cast<int64_t>(part) * kEmbed;
    const auto copy = [](const TensorView& to, const ConstTensorView& from) {
      oracle::fill_with(to, [&](const oracle::Index& at) { return oracle::read(from, at); });
    };
    copy(weight.view().narrow(0, start, kEmbed), dict[2 * part].second);
    copy(bias.view().narrow(0, start, kEmbed), dict[2 * part + 1].second);
  }
  module.set_parameter("in_proj_weight", weight);
  module.set_parameter("in_proj_bias", bias);
  module.set_parameter("out_proj.weight", dict[6].second);
  module.set_parameter("out_proj.bias", dict[7].second);
  const Tensor q = query(), k = key(), v = value();
  expect_same_bits(scratch.forward(q, k, v), module.forward(q, k, v).out, "no mask");
}

}  // namespace
}  // namespace polyhead
