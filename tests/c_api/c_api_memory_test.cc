// Every function of the C ABI with its n-th allocation failing, for each n, pool threads included:
// POLYHEAD_MEMORY and a message, outputs as they were, nothing lost, and the next call works.
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <polyhead/c_api.h>
#include <polyhead/polyhead.h>

namespace {

constexpr long kNever = -1;
std::atomic<long> g_left{kNever};   // allocations of any thread until one fails
std::atomic<bool> g_failed{false};  // it did
std::atomic<long> g_blocks{0};      // allocated and not freed

void* allocate(std::size_t bytes, std::size_t alignment) {
  for (long left = g_left; left != kNever;) {
    if (!g_left.compare_exchange_weak(left, left == 0 ? kNever : left - 1)) continue;
    if (left > 0) break;
    g_failed = true;
    throw std::bad_alloc();
  }
  const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* memory = std::aligned_alloc(alignment, rounded == 0 ? alignment : rounded);
  if (memory == nullptr) throw std::bad_alloc();
  ++g_blocks;
  return memory;
}

void release(void* memory) {
  if (memory == nullptr) return;
  --g_blocks;
  std::free(memory);
}

}  // namespace

void* operator new(std::size_t bytes) { return allocate(bytes, alignof(std::max_align_t)); }
void* operator new[](std::size_t bytes) { return allocate(bytes, alignof(std::max_align_t)); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { release(memory); }
void operator delete[](void* memory) noexcept { release(memory); }
void operator delete(void* memory, std::size_t) noexcept { release(memory); }
void operator delete[](void* memory, std::size_t) noexcept { release(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { release(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { release(memory); }

namespace {

constexpr int64_t kLen = 48, kEmbed = 64, kHeads = 4;  // enough work to wake the pool
const int64_t kShape[] = {1, kLen, kEmbed};
const int64_t kHeadsShape[] = {1, kHeads, kLen, kEmbed / kHeads};
const int64_t kWeightsShape[] = {1, kHeads, kLen, kLen};
const int64_t kBiasShape[] = {kEmbed};

struct Buffers {
  std::vector<float> input = std::vector<float>(kLen * kEmbed, 0.5f);
  std::vector<float> out = std::vector<float>(kLen * kEmbed);
  std::vector<float> weights = std::vector<float>(kHeads * kLen * kLen);
  polyhead_tensor x = {input.data(), POLYHEAD_FLOAT32, 3, kShape, nullptr};
  polyhead_tensor y = {out.data(), POLYHEAD_FLOAT32, 3, kShape, nullptr};
  polyhead_tensor w = {weights.data(), POLYHEAD_FLOAT32, 4, kWeightsShape, nullptr};

  void mark() {
    std::fill(out.begin(), out.end(), -7.0f);
    std::fill(weights.begin(), weights.end(), -7.0f);
  }
  bool marked() const {
    const auto is_mark = [](float number) { return number == -7.0f; };
    return std::all_of(out.begin(), out.end(), is_mark) &&
           std::all_of(weights.begin(), weights.end(), is_mark);
  }
};

// What one call in one attempt gave.
struct Attempt {
  polyhead_status status = POLYHEAD_OK;
  bool failed_allocation = false;
  std::string error;
};

// On a thread of its own, whose scratch memory starts empty, and with a pool of another size than
// last time, so that making the pool is part of the call.
Attempt attempt(long n, const std::function<polyhead_status()>& call) {
  Attempt result;
  static int threads = 2;
  threads = threads == 2 ? 3 : 2;
  EXPECT_EQ(polyhead_set_num_threads(threads), POLYHEAD_OK);
  std::thread([&] {
    g_failed = false;
    g_left = n;
    result.status = call();
    g_left = kNever;
    result.failed_allocation = g_failed;
    result.error = polyhead_last_error();
  }).join();
  return result;
}

// `undo` runs after a success and must free what the call made. `untouched` holds after a failure.
struct Case {
  std::function<polyhead_status()> call;
  std::function<void()> undo = [] {};
  std::function<bool()> untouched = [] { return true; };
};

// Fails each allocation in turn until none is left to fail. Returns how many failed.
int fail_each(const char* name, const Case& tested) {
  SCOPED_TRACE(name);
  int refused = 0;
  for (long n = 0; n < 5000; ++n) {
    const Attempt got = attempt(n, tested.call);
    if (got.status == POLYHEAD_OK) tested.undo();
    if (!got.failed_allocation) {
      EXPECT_EQ(got.status, POLYHEAD_OK) << got.error;
      return refused;
    }
    if (got.status == POLYHEAD_OK) continue;  // it went on without: fewer threads
    ++refused;
    EXPECT_EQ(got.status, POLYHEAD_MEMORY) << "allocation " << n << ": " << got.error;
    EXPECT_EQ(got.error, std::string(name) + ": out of memory");
    EXPECT_TRUE(tested.untouched()) << "allocation " << n;
  }
  ADD_FAILURE() << "never succeeded";
  return refused;
}

polyhead_mha_config mha_config() {
  polyhead_mha_config config{};
  config.struct_size = sizeof config;
  config.embed_dim = kEmbed;
  config.num_heads = kHeads;
  config.layout = POLYHEAD_BATCH_FIRST;
  return config;
}

polyhead_scratch_config scratch_config() {
  return {sizeof(polyhead_scratch_config), kEmbed, kHeads, 0, 0, 0};
}

class CApiMemory : public ::testing::Test {
 protected:
  CApiMemory() {
    const auto config = mha_config();
    const auto scratch = scratch_config();
    EXPECT_EQ(polyhead_mha_create(&config, nullptr, 0, &mha_), POLYHEAD_OK);
    EXPECT_EQ(polyhead_scratch_create(&scratch, nullptr, 0, &scratch_), POLYHEAD_OK);
    EXPECT_EQ(polyhead_get_num_threads(&threads_), POLYHEAD_OK);
  }
  ~CApiMemory() override {
    polyhead_mha_destroy(mha_);
    polyhead_scratch_destroy(scratch_);
    EXPECT_EQ(polyhead_set_num_threads(threads_), POLYHEAD_OK);
  }

  polyhead_mha* mha_ = nullptr;
  polyhead_scratch* scratch_ = nullptr;
  int32_t threads_ = 0;
};

TEST_F(CApiMemory, ForwardOfEach) {
  Buffers buffers;
  polyhead_forward_options options{};
  options.struct_size = sizeof options;
  options.need_weights = POLYHEAD_WEIGHTS_PER_HEAD;
  const Buffers& b = buffers;
  const auto mark = [&] { buffers.mark(); };
  const auto marked = [&] { return b.marked(); };
  mark();
  EXPECT_GT(
      fail_each("polyhead_mha_forward",
                {[&] { return polyhead_mha_forward(mha_, &options, &b.x, &b.x, &b.x, &b.y, &b.w); },
                 mark, marked}),
      2);
  EXPECT_GT(fail_each("polyhead_scratch_forward", {[&] {
                                                     return polyhead_scratch_forward(
                                                         scratch_, nullptr, &b.x, &b.x, &b.x, &b.y,
                                                         &b.w);
                                                   },
                                                   mark, marked}),
            2);
}

// A step's context and its gradients, added to what is there.
struct Training {
  explicit Training(const polyhead_mha* mha) {
    float* to = memory.data();
    for (size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(polyhead_mha_parameter_at(mha, i, &parameters[i]), POLYHEAD_OK);
      const polyhead_tensor& shape = parameters[i].tensor;
      parameters[i].tensor.data = to;
      to += shape.shape[0] * (shape.rank == 2 ? shape.shape[1] : 1);
    }
    wanted.struct_size = sizeof wanted;
    wanted.d_out = &buffers.x;
    wanted.d_query = wanted.d_key = wanted.d_value = &d_x;
    wanted.parameters = parameters.data();
    wanted.num_parameters = 4;
    wanted.accumulate = 1;
    renew();
  }
  ~Training() { polyhead_training_context_destroy(context); }
  Training(const Training&) = delete;
  Training& operator=(const Training&) = delete;

  void mark() {
    buffers.mark();
    std::fill(memory.begin(), memory.end(), -7.0f);
    std::fill(d_input.begin(), d_input.end(), -7.0f);
  }
  bool marked() const {
    const auto is_mark = [](float number) { return number == -7.0f; };
    return buffers.marked() && std::all_of(memory.begin(), memory.end(), is_mark) &&
           std::all_of(d_input.begin(), d_input.end(), is_mark);
  }
  void renew() {  // a context that has no memory yet
    polyhead_training_context_destroy(context);
    EXPECT_EQ(polyhead_training_context_create(&context), POLYHEAD_OK);
    mark();
  }
  // `forward` fills the context, `backward` follows.
  void run(const char* forward_name, const std::function<polyhead_status()>& forward,
           const char* backward_name, const std::function<polyhead_status()>& backward) {
    EXPECT_GT(fail_each(forward_name, {forward, [&] { renew(); }, [&] { return marked(); }}), 1);
    ASSERT_EQ(forward(), POLYHEAD_OK);
    mark();
    EXPECT_GT(fail_each(backward_name, {backward, [&] { mark(); }, [&] { return marked(); }}), 1);
  }

  Buffers buffers;
  std::vector<float> memory = std::vector<float>(4 * kEmbed * kEmbed + 4 * kEmbed);
  std::vector<float> d_input = std::vector<float>(kLen * kEmbed);
  polyhead_tensor d_x = {d_input.data(), POLYHEAD_FLOAT32, 3, kShape, nullptr};
  std::vector<polyhead_parameter> parameters = std::vector<polyhead_parameter>(4);
  polyhead_gradients wanted{};
  polyhead_training_context* context = nullptr;
};

// Gradients are written all or not at all: what is added half way could not be undone.
TEST_F(CApiMemory, TrainingOfEach) {
  Training t(mha_);
  const Buffers& b = t.buffers;
  t.run(
      "polyhead_mha_forward_training",
      [&] {
        return polyhead_mha_forward_training(mha_, nullptr, &b.x, &b.x, &b.x, &b.y, nullptr,
                                             t.context);
      },
      "polyhead_mha_backward", [&] { return polyhead_mha_backward(mha_, t.context, &t.wanted); });
  t.renew();
  t.wanted.num_parameters = 0;
  t.run(
      "polyhead_scratch_forward_training",
      [&] {
        return polyhead_scratch_forward_training(scratch_, nullptr, &b.x, &b.x, &b.x, &b.y, nullptr,
                                                 t.context);
      },
      "polyhead_scratch_backward",
      [&] { return polyhead_scratch_backward(scratch_, t.context, &t.wanted); });
  fail_each("polyhead_mha_repack", {[&] { return polyhead_mha_repack(mha_); }});
  fail_each("polyhead_scratch_repack", {[&] { return polyhead_scratch_repack(scratch_); }});
  polyhead_training_context* made = nullptr;
  fail_each("polyhead_training_context_create",
            {[&] { return polyhead_training_context_create(&made); },
             [&] { polyhead_training_context_destroy(std::exchange(made, nullptr)); },
             [&] { return made == nullptr; }});
}

TEST_F(CApiMemory, AttentionForward) {
  Buffers buffers;
  const polyhead_tensor q = {buffers.input.data(), POLYHEAD_FLOAT32, 4, kHeadsShape, nullptr};
  const polyhead_tensor out = {buffers.out.data(), POLYHEAD_FLOAT32, 4, kHeadsShape, nullptr};
  polyhead_mask mask{};
  mask.struct_size = sizeof mask;
  mask.kind = POLYHEAD_MASK_CAUSAL;
  polyhead_attention_options options{};
  options.struct_size = sizeof options;
  options.masks = &mask;
  options.num_masks = 1;
  options.weights = POLYHEAD_WEIGHTS_PER_HEAD;
  const polyhead_attention_outputs outputs = {sizeof outputs, &out, nullptr, &buffers.w, nullptr};
  buffers.mark();
  EXPECT_GT(fail_each("polyhead_attention_forward",
                      {[&] { return polyhead_attention_forward(&options, &q, &q, &q, &outputs); },
                       [&] { buffers.mark(); }, [&] { return buffers.marked(); }}),
            1);
}

// On a call whose gradients take memory of several kinds: sums for each task, and for the mask.
TEST_F(CApiMemory, AttentionBackward) {
  Buffers buffers;
  const polyhead_tensor q = {buffers.input.data(), POLYHEAD_FLOAT32, 4, kHeadsShape, nullptr};
  const polyhead_tensor lse = {buffers.input.data(), POLYHEAD_FLOAT32, 3, kHeadsShape, nullptr};
  const polyhead_tensor d_key = {buffers.out.data(), POLYHEAD_FLOAT32, 4, kHeadsShape, nullptr};
  std::vector<float> numbers(buffers.weights.size());
  const polyhead_tensor added = {numbers.data(), POLYHEAD_FLOAT32, 4, kWeightsShape, nullptr};
  const polyhead_tensor* const d_masks[] = {&buffers.w};
  polyhead_mask mask{};
  mask.struct_size = sizeof mask;
  mask.kind = POLYHEAD_MASK_ADDITIVE;
  mask.tensor = &added;
  polyhead_attention_options options{};
  options.struct_size = sizeof options;
  options.masks = &mask;
  options.num_masks = 1;
  const polyhead_attention_backward_inputs inputs = {sizeof inputs, &q, &lse, &q, nullptr, nullptr};
  const polyhead_attention_gradients gradients = {sizeof gradients, nullptr, &d_key,
                                                  nullptr,          d_masks, nullptr};
  buffers.mark();
  EXPECT_GT(
      fail_each(
          "polyhead_attention_backward",
          {[&] { return polyhead_attention_backward(&options, &q, &q, &q, &inputs, &gradients); },
           [&] { buffers.mark(); }, [&] { return buffers.marked(); }}),
      2);
}

// A handle of each class, made and destroyed; what is left allocated is counted.
TEST_F(CApiMemory, CreateLoadAndSave) {
  const char* path = "c_api_memory_test.safetensors";
  const char* scratch_path = "c_api_memory_test_scratch.safetensors";
  polyhead_mha* mha = nullptr;
  polyhead_scratch* scratch = nullptr;
  polyhead_load_options options{};
  options.struct_size = sizeof options;
  options.layout = POLYHEAD_BATCH_FIRST;
  options.map = POLYHEAD_MAP_BERT;
  const auto config = mha_config();
  const auto scratch_sizes = scratch_config();
  std::vector<polyhead_parameter> parameters(4);
  for (size_t i = 0; i < 4; ++i) {
    ASSERT_EQ(polyhead_mha_parameter_at(mha_, i, &parameters[i]), POLYHEAD_OK);
  }
  const auto undo = [&] {
    polyhead_mha_destroy(std::exchange(mha, nullptr));
    polyhead_scratch_destroy(std::exchange(scratch, nullptr));
  };
  const auto untouched = [&] { return mha == nullptr && scratch == nullptr; };
  const auto expect_clean = [&](const char* name, const std::function<polyhead_status()>& call) {
    const long before = g_blocks;
    EXPECT_GT(fail_each(name, {call, undo, untouched}), 5);
    EXPECT_EQ(g_blocks, before) << name << " keeps memory";
  };
  expect_clean("polyhead_mha_create",
               [&] { return polyhead_mha_create(&config, nullptr, 0, &mha); });
  expect_clean("polyhead_mha_create",
               [&] { return polyhead_mha_create(&config, parameters.data(), 4, &mha); });
  expect_clean("polyhead_scratch_create",
               [&] { return polyhead_scratch_create(&scratch_sizes, nullptr, 0, &scratch); });
  expect_clean("polyhead_mha_save", [&] { return polyhead_mha_save(mha_, path, "a."); });
  expect_clean("polyhead_scratch_save",
               [&] { return polyhead_scratch_save(scratch_, scratch_path, nullptr); });
  expect_clean("polyhead_mha_load", [&] { return polyhead_mha_load(path, &options, &mha); });
  expect_clean("polyhead_scratch_load",
               [&] { return polyhead_scratch_load(scratch_path, nullptr, &scratch); });
  std::remove(path);
  std::remove(scratch_path);
}

// After a failure the module gives the old output, after a success the new one, and never a mix.
TEST_F(CApiMemory, SetParameter) {
  Buffers b;
  std::vector<float> weight(kEmbed * kEmbed, 0.25f);
  const int64_t shape[] = {kEmbed, kEmbed};
  const polyhead_tensor value = {weight.data(), POLYHEAD_FLOAT32, 2, shape, nullptr};
  const auto output = [&] {
    EXPECT_EQ(polyhead_mha_forward(mha_, nullptr, &b.x, &b.x, &b.x, &b.y, nullptr), POLYHEAD_OK);
    return b.out;
  };
  const std::vector<float> old_output = output();
  polyhead_tensor parameter;
  ASSERT_EQ(polyhead_mha_get_parameter(mha_, "out_proj.weight", &parameter), POLYHEAD_OK);
  const auto* now = static_cast<const float*>(parameter.data);
  const std::vector<float> old_weight(now, now + kEmbed * kEmbed);
  const int refused = fail_each(
      "polyhead_mha_set_parameter",
      {[&] { return polyhead_mha_set_parameter(mha_, "out_proj.weight", &value); }, [] {},
       [&] {
         return std::equal(old_weight.begin(), old_weight.end(), now) && output() == old_output;
       }});
  EXPECT_GT(refused, 2);
  EXPECT_NE(output(), old_output);
  EXPECT_EQ(now[0], 0.25f);
}

// A cache made and filled, whose growth takes memory for its tables.
TEST_F(CApiMemory, KvCache) {
  constexpr int64_t kKvHeads = 2, kDim = 8, kNew = 40;
  const int64_t kv_shape[] = {1, kKvHeads, kNew, kDim};
  const int64_t one_shape[] = {kKvHeads, kNew, kDim};
  const int64_t query_shape[] = {1, 2 * kKvHeads, kNew, kDim};
  Buffers buffers;
  const polyhead_tensor kv = {buffers.input.data(), POLYHEAD_FLOAT32, 4, kv_shape, nullptr};
  const polyhead_tensor one = {buffers.input.data(), POLYHEAD_FLOAT32, 3, one_shape, nullptr};
  const polyhead_tensor query = {buffers.input.data(), POLYHEAD_FLOAT32, 4, query_shape, nullptr};
  const polyhead_tensor out = {buffers.out.data(), POLYHEAD_FLOAT32, 4, query_shape, nullptr};
  polyhead_kv_cache_config config{};
  config.struct_size = sizeof config;
  config.num_kv_heads = kKvHeads;
  config.head_dim = kDim;
  config.page_len = 32;
  config.num_pages = 64;
  polyhead_kv_cache* cache = nullptr;
  const auto undo = [&] { polyhead_kv_cache_destroy(std::exchange(cache, nullptr)); };
  const auto length = [&] {
    int64_t n = -1;
    EXPECT_EQ(polyhead_kv_cache_length(cache, 0, &n), POLYHEAD_OK);
    return n;
  };
  const auto create = [&] { return polyhead_kv_cache_create(&config, &cache); };
  const long before = g_blocks;
  EXPECT_GT(fail_each("polyhead_kv_cache_create", {create, undo, [&] { return cache == nullptr; }}),
            5);
  EXPECT_EQ(g_blocks, before);
  ASSERT_EQ(create(), POLYHEAD_OK);
  int64_t wanted = 0;
  const auto grown = [&] { wanted += kNew; };
  const auto unchanged = [&] { return length() == wanted; };
  EXPECT_GT(fail_each("polyhead_kv_cache_append",
                      {[&] { return polyhead_kv_cache_append(cache, &kv, &kv, nullptr); }, grown,
                       unchanged}),
            0);
  int refused = 0;
  for (int repeat = 0; repeat < 4; ++repeat) {  // a table grows only now and then
    refused += fail_each("polyhead_kv_cache_append_sequence",
                         {[&] { return polyhead_kv_cache_append_sequence(cache, 0, &one, &one); },
                          grown, unchanged});
  }
  EXPECT_GT(refused, 0);
  const polyhead_attention_outputs outputs = {sizeof outputs, &out, nullptr, nullptr, nullptr};
  buffers.mark();
  EXPECT_GT(fail_each("polyhead_kv_cache_attend",
                      {[&] { return polyhead_kv_cache_attend(cache, nullptr, &query, &outputs); },
                       [&] { buffers.mark(); }, [&] { return buffers.marked(); }}),
            1);
  fail_each("polyhead_kv_cache_truncate",
            {[&] { return polyhead_kv_cache_truncate(cache, 0, 1); }});
  fail_each("polyhead_kv_cache_reset", {[&] { return polyhead_kv_cache_reset(cache); }});
  undo();
}

// A step of a module over a cache whose window forgets: whatever fails, the next attempt finds all
// that it needs, and the same results come out as from steps that did not fail.
TEST_F(CApiMemory, ForwardCached) {
  polyhead_kv_cache_config config{};
  config.struct_size = sizeof config;
  fail_each("polyhead_mha_cache_config",
            {[&] { return polyhead_mha_cache_config(mha_, 1, 3, &config); }});
  config.page_len = 32;
  config.window = 20;
  polyhead_kv_cache *cache = nullptr, *other = nullptr;
  ASSERT_EQ(polyhead_kv_cache_create(&config, &cache), POLYHEAD_OK);
  ASSERT_EQ(polyhead_kv_cache_create(&config, &other), POLYHEAD_OK);
  const auto state = [](const polyhead_kv_cache* of) {
    std::array<int64_t, 3> numbers{};
    EXPECT_EQ(polyhead_kv_cache_length(of, 0, &numbers[0]), POLYHEAD_OK);
    EXPECT_EQ(polyhead_kv_cache_first_kept(of, 0, &numbers[1]), POLYHEAD_OK);
    EXPECT_EQ(polyhead_kv_cache_free_pages(of, &numbers[2]), POLYHEAD_OK);
    return numbers;
  };
  Buffers buffers, wanted;
  buffers.mark();
  const auto forward = [&] {
    return polyhead_mha_forward_cached(mha_, nullptr, cache, &buffers.x, &buffers.y);
  };
  const auto follow = [&] {  // with the other cache
    EXPECT_EQ(polyhead_mha_forward_cached(mha_, nullptr, other, &buffers.x, &wanted.y),
              POLYHEAD_OK);
    EXPECT_EQ(buffers.out, wanted.out);
    EXPECT_EQ(state(cache), state(other));
    for (float& x : buffers.input) x += 0.125f;
    buffers.mark();
  };
  const auto unchanged = [&] { return state(cache) == state(other) && buffers.marked(); };
  int refused = 0;
  for (int repeat = 0; repeat < 5; ++repeat) {
    refused += fail_each("polyhead_mha_forward_cached", {forward, follow, unchanged});
  }
  EXPECT_GT(refused, 10);
  EXPECT_GT(state(cache)[1], 0);
  polyhead_kv_cache_destroy(cache);
  polyhead_kv_cache_destroy(other);
}

TEST_F(CApiMemory, TheRest) {
  polyhead_tensor tensor;
  std::vector<float> bias(kEmbed);
  const polyhead_tensor value = {bias.data(), POLYHEAD_FLOAT32, 1, kBiasShape, nullptr};
  polyhead_parameter parameter;
  size_t count = 0;
  int32_t threads = 0;
  polyhead_mha_config config = mha_config();
  polyhead_scratch_config scratch = scratch_config();
  const std::string isa = polyhead_isa();
  fail_each("polyhead_scratch_set_parameter",
            {[&] { return polyhead_scratch_set_parameter(scratch_, "fc_out.bias", &value); }});
  fail_each("polyhead_mha_get_parameter",
            {[&] { return polyhead_mha_get_parameter(mha_, "out_proj.bias", &tensor); }});
  fail_each("polyhead_scratch_get_parameter",
            {[&] { return polyhead_scratch_get_parameter(scratch_, "fc_out.bias", &tensor); }});
  fail_each("polyhead_mha_parameter_at",
            {[&] { return polyhead_mha_parameter_at(mha_, 0, &parameter); }});
  fail_each("polyhead_scratch_parameter_at",
            {[&] { return polyhead_scratch_parameter_at(scratch_, 0, &parameter); }});
  fail_each("polyhead_mha_num_parameters",
            {[&] { return polyhead_mha_num_parameters(mha_, &count); }});
  fail_each("polyhead_scratch_num_parameters",
            {[&] { return polyhead_scratch_num_parameters(scratch_, &count); }});
  fail_each("polyhead_mha_get_config", {[&] { return polyhead_mha_get_config(mha_, &config); }});
  fail_each("polyhead_scratch_get_config",
            {[&] { return polyhead_scratch_get_config(scratch_, &scratch); }});
  fail_each("polyhead_get_num_threads", {[&] { return polyhead_get_num_threads(&threads); }});
  fail_each("polyhead_set_num_threads", {[&] { return polyhead_set_num_threads(2); }});
  fail_each("polyhead_force_isa", {[&] { return polyhead_force_isa(isa.c_str()); }});
  fail_each("polyhead_isa",
            {[&] { return polyhead_isa() == nullptr ? POLYHEAD_MEMORY : POLYHEAD_OK; }});
  fail_each("polyhead_lend_executor", {[&] { return polyhead_lend_executor(nullptr, nullptr); }});
}

// Refusals build a message, which takes memory too: still a status and some message.
TEST_F(CApiMemory, RefusalsWithoutMemory) {
  const polyhead_tensor bad = {nullptr, POLYHEAD_FLOAT32, 3, kShape, nullptr};
  for (long n = 0; n < 50; ++n) {
    const Attempt got = attempt(
        n, [&] { return polyhead_mha_forward(mha_, nullptr, &bad, &bad, &bad, &bad, nullptr); });
    EXPECT_TRUE(got.status == POLYHEAD_INVALID_ARGUMENT || got.status == POLYHEAD_MEMORY);
    EXPECT_NE(got.error, "");
    if (!got.failed_allocation) return;
  }
  ADD_FAILURE() << "never without a failed allocation";
}

}  // namespace
