// forward_into and backward allocate nothing after their first call of a shape: counted.
#include <thread>

#include <gtest/gtest.h>
#include <polyhead/multihead_attention.h>
#include "module/module_test_tools.h"
#include "testing/allocations.h"
#include "testing/machine.h"

namespace polyhead {
namespace {

using oracle::allocated_bytes;
using oracle::allocations_after_the_first;
using oracle::random_mha;
using oracle::random_tensor;

TEST(ModuleAllocation, TheCounterCounts) {
  EXPECT_EQ(allocations_after_the_first([] { Tensor tensor(DType::kFloat32, {2}); }), 5);
}

TEST(ModuleAllocation, ForwardIntoAllocatesOnce) {
  for (const int n : {1, 2}) {
    const oracle::Threads threads(n);
    const MultiheadAttention module = random_mha({.embed_dim = 64,
                                                  .num_heads = 4,
                                                  .layout = Layout::kSequenceFirst,
                                                  .add_bias_kv = true,
                                                  .add_zero_attn = true,
                                                  .qk_norm = true,
                                                  .rope = {.pairs = RopePairs::kInterleaved}});
    const Tensor x = random_tensor(DType::kFloat32, {50, 3, 64}, 1), y(x), z(x);
    const Tensor mask = random_tensor(DType::kFloat32, {12, 50, 50}, 2);
    const Tensor hidden = oracle::random_hidden({3, 50}, 3);
    Tensor out(DType::kFloat32, {50, 3, 64}), average(DType::kFloat32, {3, 50, 52}),
        per_head(DType::kFloat32, {3, 4, 50, 52});
    const auto count = [&](const Tensor& key, const Tensor& value, WeightsMode mode) {
      const TensorView weights = mode == WeightsMode::kNone      ? TensorView()
                                 : mode == WeightsMode::kAverage ? average.view()
                                                                 : per_head.view();
      const ForwardOptions options{.attn_mask = mask.view(),
                                   .key_padding_mask = hidden.view(),
                                   .is_causal = true,
                                   .need_weights = mode};
      return allocations_after_the_first(
          [&] { module.forward_into(x, key, value, options, out, weights); });
    };
    for (const WeightsMode mode :
         {WeightsMode::kNone, WeightsMode::kAverage, WeightsMode::kPerHead}) {
      EXPECT_EQ(count(x, x, mode), 0) << "one input";
      EXPECT_EQ(count(y, y, mode), 0) << "key is value";
      EXPECT_EQ(count(y, z, mode), 0) << "three inputs";
    }
  }
}

// A decoder's step, the same again and again: its tables of pages are as long as before.
TEST(ModuleAllocation, ForwardCachedIntoAllocatesOnce) {
  for (const int n : {1, 2}) {
    const oracle::Threads threads(n);
    const MultiheadAttention module = random_mha({.embed_dim = 64,
                                                  .num_heads = 4,
                                                  .layout = Layout::kSequenceFirst,
                                                  .num_kv_heads = 2,
                                                  .qk_norm = true,
                                                  .rope = {.pairs = RopePairs::kHalves}});
    KvCache cache(module.cache_config(3, 9));
    const int64_t lengths[] = {4, 0, 50};
    const Tensor x = random_tensor(DType::kFloat32, {50, 3, 64}, 1);
    Tensor out(DType::kFloat32, {50, 3, 64});
    for (const CachedForwardOptions& options :
         {CachedForwardOptions{}, CachedForwardOptions{.lengths = {lengths, {3}}}}) {
      EXPECT_EQ(allocations_after_the_first([&] {
                  cache.reset();
                  module.forward_cached_into(x, &cache, options, out);
                  module.forward_cached_into(x, &cache, options, out);
                }),
                0);
    }
  }
}

TEST(ModuleAllocation, TrainingAllocatesOnce) {
  for (const int n : {1, 2}) {
    const oracle::Threads threads(n);
    const MultiheadAttention module = random_mha({.embed_dim = 64,
                                                  .num_heads = 4,
                                                  .layout = Layout::kBatchFirst,
                                                  .add_bias_kv = true,
                                                  .num_kv_heads = 2,
                                                  .qk_norm = true,
                                                  .rope = {.pairs = RopePairs::kHalves}});
    const Tensor x = random_tensor(DType::kFloat32, {3, 50, 64}, 1), y(x);
    const Tensor mask = random_tensor(DType::kFloat32, {50, 50}, 2);
    const ForwardOptions options{.attn_mask = mask.view(), .is_causal = true};
    Tensor out = x, d_x = x, d_y = x, d_mask = mask;
    ParameterGradients parameters(module.state_dict());
    TrainingContext context;
    for (const Tensor* key : {&x, &y}) {
      EXPECT_EQ(allocations_after_the_first([&] {
                  module.forward_into(x, *key, *key, options, {.out = out}, &context);
                  module.backward(
                      context, {.d_out = x},
                      {.d_query = d_x, .d_key = d_y, .d_value = d_y, .d_attn_mask = d_mask},
                      parameters.views());
                }),
                0);
    }
  }
}

// One d_x for all inputs is one product, which has nowhere to be summed.
TEST(ModuleAllocation, OneGradientForAllInputsTakesNoMemoryOfItsOwn) {
  const oracle::Threads one(1);
  const MultiheadAttention module =
      random_mha({.embed_dim = 64, .num_heads = 4, .layout = Layout::kBatchFirst});
  const Tensor x = random_tensor(DType::kFloat32, {3, 50, 64}, 1);
  Tensor d_x(x), d_y(x), d_z(x);
  TrainingContext context;
  module.forward(x, x, x, {}, &context);
  // What a thread keeps that has never run a backward before.
  const auto bytes = [&](const InputGradients& inputs) {
    const long before = allocated_bytes();
    std::thread([&] { module.backward(context, {.d_out = x}, inputs); }).join();
    return allocated_bytes() - before;
  };
  const InputGradients apart = {.d_query = d_x, .d_key = d_y, .d_value = d_z};
  bytes(apart);  // packs the weights
  EXPECT_EQ(bytes({.d_query = d_x, .d_key = d_x, .d_value = d_x}), bytes(apart));
}

TEST(ModuleAllocation, FromScratchAllocatesOnce) {
  const FromScratchMultiHeadAttention module(24, 3, HeadWidth::kFull);
  const Tensor x = random_tensor(DType::kFloat32, {2, 30, 24}, 1);
  const Tensor mask = random_tensor(DType::kFloat32, {30}, 2);
  Tensor out(DType::kFloat32, {2, 30, 24}), weights(DType::kFloat32, {2, 30, 30});
  EXPECT_EQ(allocations_after_the_first([&] { module.forward_into(x, x, x, mask, out, weights); }),
            0);
}

}  // namespace
}  // namespace polyhead
