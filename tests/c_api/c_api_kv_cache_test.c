/* The cache from C: what it counts, and what it refuses of a mistaken or hostile caller, as it was
 * before then. Compiled as C99. */
#include "hostile.h"

enum { kPages = 4, kPageLen = 32 };

static polyhead_kv_cache* g_cache;

static polyhead_kv_cache_config right_config(void) {
  polyhead_kv_cache_config config;
  memset(&config, 0, sizeof config);
  config.struct_size = sizeof config;
  config.batch = kBatch;
  config.num_kv_heads = kHeads;
  config.head_dim = kEmbed;
  config.page_len = kPageLen;
  config.num_pages = kPages;
  return config;
}

/* The shapes are where `a` is. */
static void settle(arguments* a) {
  int i;
  for (i = 0; i < kTensors; ++i) a->tensors[i].shape = a->shapes[i];
}

static void expect_lengths(int64_t first, int64_t second, int64_t free_pages) {
  int64_t n = -1;
  EXPECT_OK(polyhead_kv_cache_length(g_cache, 0, &n));
  EXPECT(n == first);
  EXPECT_OK(polyhead_kv_cache_length(g_cache, 1, &n));
  EXPECT(n == second);
  EXPECT_OK(polyhead_kv_cache_free_pages(g_cache, &n));
  EXPECT(n == free_pages);
}

/* ---- Right arguments ---- */

static int32_t g_lengths[] = {kLen, 1};

/* key, value, lengths */
static arguments append_arguments(void) {
  const int64_t k[] = {kBatch, kHeads, kLen, kEmbed}, lengths[] = {kBatch};
  arguments a;
  memset(&a, 0, sizeof a);
  a.missing = a.any_rank = -1;
  place(&a, 0, g_inputs, POLYHEAD_FLOAT32, 4, k);
  place(&a, 1, g_inputs, POLYHEAD_FLOAT32, 4, k);
  place(&a, 2, g_lengths, POLYHEAD_INT32, 1, lengths);
  return a;
}

static polyhead_status call_append(arguments* a) {
  return polyhead_kv_cache_append(g_cache, at(a, 0), at(a, 1), at(a, 2));
}

/* key and value of one sequence */
static arguments one_arguments(void) {
  const int64_t k[] = {kHeads, kLen, kEmbed};
  arguments a;
  memset(&a, 0, sizeof a);
  a.missing = a.any_rank = -1;
  place(&a, 0, g_inputs, POLYHEAD_FLOAT32, 3, k);
  place(&a, 1, g_inputs, POLYHEAD_FLOAT32, 3, k);
  return a;
}

static polyhead_status call_append_sequence(arguments* a) {
  return polyhead_kv_cache_append_sequence(g_cache, 1, at(a, 0), at(a, 1));
}

/* query, out, lse */
static arguments attend_arguments(void) {
  const int64_t q[] = {kBatch, 2 * kHeads, 2, kEmbed};
  arguments a;
  memset(&a, 0, sizeof a);
  a.missing = a.any_rank = -1;
  place(&a, 0, g_inputs, POLYHEAD_FLOAT32, 4, q);
  place(&a, 1, g_outputs[0], POLYHEAD_FLOAT32, 4, q);
  place(&a, 2, g_outputs[1], POLYHEAD_FLOAT32, 3, q);
  return a;
}

static polyhead_status call_attend(arguments* a) {
  polyhead_mask causal;
  polyhead_attention_options options;
  polyhead_attention_outputs outputs;
  memset(&causal, 0, sizeof causal);
  memset(&options, 0, sizeof options);
  memset(&outputs, 0, sizeof outputs);
  causal.struct_size = sizeof causal;
  causal.kind = POLYHEAD_MASK_CAUSAL;
  options.struct_size = sizeof options;
  options.masks = &causal;
  options.num_masks = 1;
  outputs.struct_size = sizeof outputs;
  outputs.out = at(a, 1);
  outputs.lse = at(a, 2);
  return polyhead_kv_cache_attend(g_cache, &options, at(a, 0), &outputs);
}

static void test_use(void) {
  arguments all = append_arguments(), one = one_arguments(), attend = attend_arguments();
  const float* out = g_outputs[0];
  int64_t kept = -1;
  int i;
  settle(&all);
  settle(&one);
  settle(&attend);
  for (i = 0; i < kRoom; ++i) g_inputs[i] = (float)(i % kEmbed);
  expect_lengths(0, 0, kPages);
  EXPECT_OK(call_append(&all));
  expect_lengths(kLen, 1, kPages - 2);
  EXPECT_OK(call_append_sequence(&one));
  expect_lengths(kLen, 1 + kLen, kPages - 2);
  EXPECT_OK(polyhead_kv_cache_truncate(g_cache, 0, 1));
  EXPECT_OK(polyhead_kv_cache_reset_sequence(g_cache, 1));
  expect_lengths(1, 0, kPages - 1);
  EXPECT_OK(polyhead_kv_cache_first_kept(g_cache, 0, &kept));
  EXPECT(kept == 0);
  EXPECT_OK(polyhead_kv_cache_reset(g_cache));
  EXPECT_OK(polyhead_kv_cache_append(g_cache, at(&all, 0), at(&all, 1), NULL));
  expect_lengths(kLen, kLen, kPages - 2);
  EXPECT_OK(call_attend(&attend));
  for (i = 0; i < kEmbed; ++i) EXPECT(out[i] == (float)i); /* all values are the same */
  EXPECT_OK(polyhead_kv_cache_reset(g_cache));
  expect_lengths(0, 0, kPages);
}

/* ---- Wrong ones ---- */

static void test_config(void) {
  static const int64_t wrong[] = {-1, INT64_MIN, INT64_MAX, INT64_MAX / 2, INT64_MAX / 8};
  const polyhead_kv_cache_config right = right_config();
  polyhead_kv_cache_config config;
  polyhead_kv_cache* cache = NULL;
  size_t i;
#define REFUSED(field, wrong_value)                              \
  (config = right, config.field = (wrong_value),                 \
   EXPECT(polyhead_kv_cache_create(&config, &cache) == INVALID), \
   EXPECT(polyhead_last_error()[0] != '\0'), EXPECT(cache == NULL))
  for (i = 0; i < sizeof wrong / sizeof wrong[0]; ++i) {
    REFUSED(batch, wrong[i]);
    REFUSED(num_kv_heads, wrong[i]);
    REFUSED(head_dim, wrong[i]);
    REFUSED(v_head_dim, wrong[i]);
    REFUSED(page_len, wrong[i]);
    REFUSED(num_pages, wrong[i]);
    REFUSED(window, wrong[i]);
  }
  REFUSED(num_kv_heads, 0);
  REFUSED(head_dim, 0);
  REFUSED(num_pages, 0);
  REFUSED(page_len, 33);
  REFUSED(dtype, POLYHEAD_BFLOAT16);
  REFUSED(dtype, POLYHEAD_INT64);
  REFUSED(dtype, 7);
  REFUSED(dtype, INT_MIN);
  REFUSED(reserved, 1);
  for (i = 0; i < sizeof kWrongSizes / sizeof kWrongSizes[0]; ++i) {
    REFUSED(struct_size, kWrongSizes[i]);
  }
#undef REFUSED
  EXPECT_FAILS(INVALID, "config: is null", polyhead_kv_cache_create(NULL, &cache));
  EXPECT_FAILS(INVALID, "out: is null", polyhead_kv_cache_create(&right, NULL));
#ifndef POLYHEAD_SANITIZED /* more memory than there are addresses */
  config = right;
  config.num_pages = INT_MAX;
  config.head_dim = 1 << 16;
  EXPECT_FAILS(POLYHEAD_MEMORY, "out of memory", polyhead_kv_cache_create(&config, &cache));
#endif
  EXPECT(cache == NULL);
  memset(&config, 0, sizeof config);
  config.struct_size = sizeof config;
  EXPECT_OK(polyhead_kv_cache_get_config(g_cache, &config));
  EXPECT(config.batch == kBatch && config.num_kv_heads == kHeads && config.head_dim == kEmbed);
  EXPECT(config.v_head_dim == kEmbed && config.page_len == kPageLen);
  EXPECT(config.num_pages == kPages && config.window == 0 && config.dtype == POLYHEAD_FLOAT32);
}

static void test_defaults(void) {
  polyhead_kv_cache_config config = right_config();
  polyhead_kv_cache* cache = NULL;
  config.batch = config.page_len = 0;
  EXPECT_OK(polyhead_kv_cache_create(&config, &cache));
  EXPECT_OK(polyhead_kv_cache_get_config(cache, &config));
  EXPECT(config.batch == 1 && config.page_len == 256);
  polyhead_kv_cache_destroy(cache);
}

static void test_nulls(void) {
  arguments all = append_arguments(), one = one_arguments(), attend = attend_arguments();
  polyhead_attention_outputs outputs;
  polyhead_kv_cache_config config = right_config();
  int64_t n = 77;
  settle(&all);
  settle(&one);
  settle(&attend);
  memset(&outputs, 0, sizeof outputs);
  outputs.struct_size = sizeof outputs;
  outputs.out = at(&attend, 1);
#define REFUSED(words, call) EXPECT_FAILS(INVALID, words ": is null", call)
  REFUSED("cache", polyhead_kv_cache_get_config(NULL, &config));
  REFUSED("config", polyhead_kv_cache_get_config(g_cache, NULL));
  REFUSED("cache", polyhead_kv_cache_length(NULL, 0, &n));
  REFUSED("out", polyhead_kv_cache_length(g_cache, 0, NULL));
  REFUSED("cache", polyhead_kv_cache_first_kept(NULL, 0, &n));
  REFUSED("out", polyhead_kv_cache_first_kept(g_cache, 0, NULL));
  REFUSED("cache", polyhead_kv_cache_free_pages(NULL, &n));
  REFUSED("out", polyhead_kv_cache_free_pages(g_cache, NULL));
  REFUSED("cache", polyhead_kv_cache_append(NULL, at(&all, 0), at(&all, 1), NULL));
  REFUSED("cache", polyhead_kv_cache_append_sequence(NULL, 0, at(&one, 0), at(&one, 1)));
  REFUSED("cache", polyhead_kv_cache_truncate(NULL, 0, 0));
  REFUSED("cache", polyhead_kv_cache_reset(NULL));
  REFUSED("cache", polyhead_kv_cache_reset_sequence(NULL, 0));
  REFUSED("cache", polyhead_kv_cache_attend(NULL, NULL, at(&attend, 0), &outputs));
  REFUSED("outputs", polyhead_kv_cache_attend(g_cache, NULL, at(&attend, 0), NULL));
#undef REFUSED
  EXPECT(n == 77);
  polyhead_kv_cache_destroy(NULL);
}

static void test_numbers(void) {
  static const int64_t wrong[] = {-1, kBatch, INT64_MIN, INT64_MAX};
  arguments all = append_arguments(), one = one_arguments();
  int64_t n = 77;
  size_t i;
  settle(&all);
  settle(&one);
  EXPECT_OK(call_append(&all));
  for (i = 0; i < sizeof wrong / sizeof wrong[0]; ++i) {
    const int64_t s = wrong[i];
    EXPECT_FAILS(INVALID, "sequence", polyhead_kv_cache_length(g_cache, s, &n));
    EXPECT_FAILS(INVALID, "sequence", polyhead_kv_cache_first_kept(g_cache, s, &n));
    EXPECT_FAILS(INVALID, "sequence", polyhead_kv_cache_truncate(g_cache, s, 0));
    EXPECT_FAILS(INVALID, "sequence", polyhead_kv_cache_reset_sequence(g_cache, s));
    EXPECT_FAILS(INVALID, "sequence",
                 polyhead_kv_cache_append_sequence(g_cache, s, at(&one, 0), at(&one, 1)));
    EXPECT_FAILS(INVALID, "length: got", polyhead_kv_cache_truncate(g_cache, 1, s));
    g_lengths[0] = s < 0 ? -1 : kLen + 1;
    EXPECT_FAILS(INVALID, "lengths[0]", call_append(&all));
    g_lengths[0] = kLen;
  }
  EXPECT(n == 77);
  expect_lengths(kLen, 1, kPages - 2);
  EXPECT_OK(polyhead_kv_cache_reset(g_cache));
}

static void test_out_of_pages(void) {
  static float zeros[kBatch * kHeads * 3 * kPageLen * kEmbed];
  const int64_t shape[] = {kBatch, kHeads, 3 * kPageLen, kEmbed};
  arguments right = append_arguments(), large = append_arguments();
  settle(&right);
  EXPECT_OK(call_append(&right));
  place(&large, 0, zeros, POLYHEAD_FLOAT32, 4, shape);
  settle(&large);
  EXPECT_FAILS(INVALID, "pages",
               polyhead_kv_cache_append(g_cache, at(&large, 0), at(&large, 0), NULL));
  expect_lengths(kLen, 1, kPages - 2);
  EXPECT_OK(call_append(&right));
  expect_lengths(2 * kLen, 2, kPages - 2);
  EXPECT_OK(polyhead_kv_cache_reset(g_cache));
}

/* Queries of a cache that is empty, or has fewer positions than they are. */
static void test_queries(void) {
  arguments all = append_arguments(), attend = attend_arguments();
  settle(&all);
  settle(&attend);
  memset(g_outputs, kUntouched, sizeof g_outputs);
  EXPECT_FAILS(INVALID, "append first", call_attend(&attend));
  EXPECT_OK(call_append(&all)); /* one position in the second sequence */
  EXPECT_FAILS(INVALID, "append first", call_attend(&attend));
  expect_untouched("queries", -1);
}

/* Each tensor spoilt in each way: nothing has grown but by what is right, at the end of each. */
static void test_tensors(void) {
  static const int32_t dtypes[] = {-1, POLYHEAD_FLOAT32, POLYHEAD_BOOL, 7, INT_MAX, INT_MIN};
  arguments all = append_arguments();
  size_t w;
  settle(&all);
  EXPECT_OK(polyhead_kv_cache_reset(g_cache));
  for (w = 0; w < sizeof dtypes / sizeof dtypes[0]; ++w) {
    all.tensors[2].dtype = dtypes[w];
    expect_refused(call_append, &all, "a wrong dtype", 2);
  }
  all.tensors[2].dtype = POLYHEAD_INT32;
  all.tensors[2].rank = 0;
  expect_refused(call_append, &all, "a wrong rank", 2);
  all.tensors[2].rank = 1;
  spoil_sizes(call_append, &all, 2);
  expect_lengths(0, 0, kPages);
  test_forward(call_append, append_arguments, 2, 2);
  expect_lengths(kLen, 1, kPages - 2);
  test_forward(call_append_sequence, one_arguments, 2, 2);
  expect_lengths(kLen, 1 + kLen, kPages - 2);
  test_forward(call_attend, attend_arguments, 2, 3);
  expect_lengths(kLen, 1 + kLen, kPages - 2);
}

/* ---- A module's step ---- */

static polyhead_mha* g_mha;

/* query, out, lengths */
static arguments step_arguments(void) {
  const int64_t x[] = {kBatch, kLen, kEmbed}, lengths[] = {kBatch};
  arguments a;
  memset(&a, 0, sizeof a);
  a.missing = a.any_rank = -1;
  place(&a, 0, g_inputs, POLYHEAD_FLOAT32, 3, x);
  place(&a, 1, g_outputs[0], POLYHEAD_FLOAT32, 3, x);
  place(&a, 2, g_lengths, POLYHEAD_INT32, 1, lengths);
  return a;
}

static polyhead_status call_step(arguments* a) {
  polyhead_cached_forward_options options;
  memset(&options, 0, sizeof options);
  options.struct_size = sizeof options;
  options.lengths = at(a, 2);
  return polyhead_mha_forward_cached(g_mha, &options, g_cache, at(a, 0), at(a, 1));
}

static void test_step_arguments(void) {
  static const int64_t sequences[] = {-1, kBatch, INT64_MIN, INT64_MAX};
  arguments a = step_arguments(), other = step_arguments();
  polyhead_cached_forward_options options;
  size_t i;
  settle(&a);
  settle(&other);
  memset(g_outputs, kUntouched, sizeof g_outputs);
  memset(&options, 0, sizeof options);
#define STEP(mha, cache, options) \
  polyhead_mha_forward_cached(mha, options, cache, at(&other, 0), at(&other, 1))
  EXPECT_FAILS(INVALID, "mha: is null", STEP(NULL, g_cache, NULL));
  EXPECT_FAILS(INVALID, "cache: is null", STEP(g_mha, NULL, NULL));
  for (i = 0; i < sizeof kWrongSizes / sizeof kWrongSizes[0]; ++i) {
    options.struct_size = kWrongSizes[i];
    EXPECT_FAILS(INVALID, "struct_size", STEP(g_mha, g_cache, &options));
  }
  options.struct_size = sizeof options;
  for (i = 0; i < sizeof sequences / sizeof sequences[0]; ++i) {
    options.sequence = sequences[i];
    EXPECT_FAILS(INVALID, "sequence: got", STEP(g_mha, g_cache, &options));
  }
  g_lengths[0] = kLen + 1;
  EXPECT_FAILS(INVALID, "lengths[0]", call_step(&a));
  g_lengths[0] = -1;
  EXPECT_FAILS(INVALID, "lengths[0]", call_step(&a));
  g_lengths[0] = kLen;
  other.shapes[0][0] = other.shapes[1][0] = kBatch + 1;
  EXPECT_FAILS(INVALID, "batch is 3", STEP(g_mha, g_cache, NULL));
  expect_untouched("a step", -1);
  expect_lengths(0, 0, kPages);
#undef STEP
}

static void test_step(void) {
  polyhead_mha_config config;
  polyhead_kv_cache_config cached;
  memset(&config, 0, sizeof config);
  config.struct_size = sizeof config;
  config.embed_dim = kEmbed;
  config.num_heads = 2 * kHeads;
  config.num_kv_heads = kHeads;
  config.head_dim = kEmbed;
  config.layout = POLYHEAD_BATCH_FIRST;
  EXPECT_OK(polyhead_mha_create(&config, NULL, 0, &g_mha));
  EXPECT_FAILS(INVALID, "mha: is null", polyhead_mha_cache_config(NULL, kBatch, kPages, &cached));
  EXPECT_FAILS(INVALID, "config: is null", polyhead_mha_cache_config(g_mha, kBatch, kPages, NULL));
  memset(&cached, 0, sizeof cached);
  cached.struct_size = sizeof cached;
  EXPECT_OK(polyhead_mha_cache_config(g_mha, kBatch, kPages, &cached));
  EXPECT(cached.batch == kBatch && cached.num_pages == kPages && cached.dtype == POLYHEAD_FLOAT32);
  EXPECT(cached.num_kv_heads == kHeads && cached.head_dim == kEmbed);
  EXPECT(cached.page_len == 256 && cached.window == 0);
  EXPECT_FAILS(INVALID, "polyhead_mha_cache_config: batch: got -1",
               polyhead_mha_cache_config(g_mha, -1, kPages, &cached));
  EXPECT_FAILS(INVALID, "num_pages: got 0", polyhead_mha_cache_config(g_mha, kBatch, 0, &cached));
  EXPECT_OK(polyhead_kv_cache_reset(g_cache));
  test_step_arguments();
  test_forward(call_step, step_arguments, 2, 2);
  expect_lengths(kLen, 1, kPages - 2);
  polyhead_mha_destroy(g_mha);
}

int main(void) {
  const polyhead_kv_cache_config config = right_config();
  EXPECT_OK(polyhead_kv_cache_create(&config, &g_cache));
  test_use();
  test_config();
  test_defaults();
  test_nulls();
  test_numbers();
  test_out_of_pages();
  test_queries();
  test_tensors();
  test_step();
  polyhead_kv_cache_destroy(g_cache);
  return verdict("c_api_kv_cache_test");
}
