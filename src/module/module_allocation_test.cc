// forward_into and backward allocate nothing after their first call of a shape: counted.
#include <atomic>
#include <cstdlib>
#include <new>

#include <gtest/gtest.h>
#include <polyhead/multihead_attention.h>
#include "module/module_test_tools.h"
#include "testing/machine.h"

namespace {

std::atomic<long> g_allocations{0};

void* counted(std::size_t bytes, std::size_t alignment) {
  g_allocations.fetch_add(1);
  const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* memory = std::aligned_alloc(alignment, rounded == 0 ? alignment : rounded);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(std::size_t bytes) { return counted(bytes, alignof(std::max_align_t)); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return counted(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace polyhead {
namespace {

using oracle::random_mha;
using oracle::random_tensor;

// Calls `forward` once, then counts what five more calls allocate.
template <class F>
long allocations_after_the_first(const F& forward) {
  forward();
  const long before = g_allocations.load();
  for (int i = 0; i < 5; ++i) forward();
  return g_allocations.load() - before;
}

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
                                                  .add_zero_attn = true});
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

TEST(ModuleAllocation, TrainingAllocatesOnce) {
  for (const int n : {1, 2}) {
    const oracle::Threads threads(n);
    const MultiheadAttention module = random_mha(
        {.embed_dim = 64, .num_heads = 4, .layout = Layout::kBatchFirst, .add_bias_kv = true});
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
