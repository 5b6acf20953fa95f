// A cache whose n-th allocation fails, for each n: std::bad_alloc, and nothing of it has changed.
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>
#include <vector>

#include <gtest/gtest.h>
#include <polyhead/kv_cache.h>
#include "testing/compare.h"
#include "testing/elements.h"

namespace {

constexpr long kNever = -1;
std::atomic<long> g_left{kNever};  // allocations until one fails

void* allocate(std::size_t bytes, std::size_t alignment) {
  for (long left = g_left; left != kNever;) {
    if (!g_left.compare_exchange_weak(left, left == 0 ? kNever : left - 1)) continue;
    if (left > 0) break;
    throw std::bad_alloc();
  }
  const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* memory = std::aligned_alloc(alignment, rounded == 0 ? alignment : rounded);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

void* operator new(std::size_t bytes) { return allocate(bytes, alignof(std::max_align_t)); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace polyhead::oracle {
namespace {

// How many of the allocations of `call` there are to fail; `unchanged` is asked after each failure,
// and the last call succeeds.
template <class Call, class Unchanged>
int fail_each(const Call& call, const Unchanged& unchanged) {
  for (int n = 0;; ++n) {
    try {
      g_left = n;
      call();
      g_left = kNever;
      return n;
    } catch (const std::bad_alloc&) {
      g_left = kNever;
      unchanged();
    }
  }
}

class KvCacheAllocation : public ::testing::Test {
 protected:
  Tensor key{DType::kFloat32, {2, 2, 40, 8}}, value{DType::kFloat32, {2, 2, 40, 8}};
  Tensor query{DType::kFloat32, {2, 4, 3, 8}};
  KvCache cache{{.batch = 2, .num_kv_heads = 2, .head_dim = 8, .page_len = 32, .num_pages = 40}};

  KvCacheAllocation() {
    fill_with(key, [](const Index& at) { return 0.1 * static_cast<double>(at[2] % 7 + at[3]); });
    fill_with(value, [](const Index& at) { return static_cast<double>(at[2] - at[0] + at[3]); });
    fill(query, 0.5);
    cache.append(key, value);
  }
  void attend(const TensorView& out) const {
    attention_forward(query, cache, {.masks = {Mask::causal()}}, {.out = out});
  }
};

TEST_F(KvCacheAllocation, Append) {
  Tensor before(query), after(query);
  attend(before);
  int failed = 0;
  for (int64_t length = 40; length < 40 * 14; length += 40) {
    failed += fail_each([&] { cache.append(key, value); },
                        [&] {
                          EXPECT_EQ(cache.length(0), length);
                          EXPECT_EQ(cache.length(1), length);
                          EXPECT_EQ(cache.free_pages(), 40 - 2 * ((length + 31) / 32));
                        });
  }
  cache.truncate(0, 40);
  cache.truncate(1, 40);
  attend(after);
  expect_same_bits(after, before, "after failures");
  EXPECT_GT(failed, 0) << "tables grow";
}

TEST_F(KvCacheAllocation, Construction) {
  const int failed = fail_each([&] { const KvCache another(cache.config()); }, [] {});
  EXPECT_GE(failed, 3) << "keys, values and tables";
}

TEST_F(KvCacheAllocation, Attention) {
  Tensor want(query), out(query);
  attend(want);
  fill(out, 77);
  const AttentionOptions options{.masks = {Mask::causal()}};
  const int failed = fail_each([&] { attention_forward(query, cache, options, {.out = out}); },
                               [&] { EXPECT_EQ(read(out, {1, 3, 2, 7}), 77); });
  EXPECT_GE(failed, 1) << "the list of masks";
  expect_same_bits(out, want, "after failures");
}

}  // namespace
}  // namespace polyhead::oracle
