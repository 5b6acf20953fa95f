/* Masks by position, packed batches and what changes scores, as a mistaken or hostile caller may
 * pass them. Compiled as C99. */
#include "hostile.h"

static int32_t g_lengths[kRoom]; /* zeros: no key, one segment */

/* query, key, value, out, sinks, slopes, key lengths, the queries' and the keys' segments */
enum { kSinks = 4, kSlopes, kLengths, kQueryIds, kKeyIds };

static arguments masked_arguments(void) {
  const int64_t q[] = {kBatch, kHeads, kLen, kEmbed}, k[] = {kBatch, kHeads, kKeys, kEmbed};
  const int64_t heads[] = {kHeads}, batch[] = {kBatch}, queries[] = {kLen}, keys[] = {kKeys};
  arguments a;
  memset(&a, 0, sizeof a);
  a.missing = a.any_rank = -1;
  place(&a, 0, g_inputs, POLYHEAD_FLOAT32, 4, q);
  place(&a, 1, g_inputs, POLYHEAD_FLOAT32, 4, k);
  place(&a, 2, g_inputs, POLYHEAD_FLOAT32, 4, k);
  place(&a, 3, g_outputs[0], POLYHEAD_FLOAT32, 4, q);
  place(&a, kSinks, g_inputs, POLYHEAD_FLOAT32, 1, heads);
  place(&a, kSlopes, g_inputs, POLYHEAD_FLOAT32, 1, heads);
  place(&a, kLengths, g_lengths, POLYHEAD_INT32, 1, batch);
  place(&a, kQueryIds, g_lengths, POLYHEAD_INT32, 1, queries);
  place(&a, kKeyIds, g_lengths, POLYHEAD_INT32, 1, keys);
  return a;
}

/* The shapes are where `a` is. */
static void settle(arguments* a) {
  int i;
  for (i = 0; i < kTensors; ++i) a->tensors[i].shape = a->shapes[i];
}

static polyhead_status call_with(const polyhead_attention_options* options, const arguments* a) {
  polyhead_attention_outputs outputs;
  memset(&outputs, 0, sizeof outputs);
  outputs.struct_size = sizeof outputs;
  outputs.out = at(a, 3);
  return polyhead_attention_forward(options, at(a, 0), at(a, 1), at(a, 2), &outputs);
}

static polyhead_status call_masked(arguments* a) {
  static const int32_t kinds[] = {POLYHEAD_MASK_ALIBI, POLYHEAD_MASK_KEY_LENGTHS,
                                  POLYHEAD_MASK_SEGMENTS};
  polyhead_mask masks[3];
  polyhead_attention_options options;
  int i;
  memset(masks, 0, sizeof masks);
  memset(&options, 0, sizeof options);
  for (i = 0; i < 3; ++i) {
    masks[i].struct_size = sizeof masks[i];
    masks[i].kind = kinds[i];
    masks[i].tensor = at(a, kSlopes + i);
  }
  masks[2].key_ids = at(a, kKeyIds);
  options.struct_size = sizeof options;
  options.masks = masks;
  options.num_masks = 3;
  options.sinks = at(a, kSinks);
  return call_with(&options, a);
}

static void test_tensors(void) {
  static const int32_t dtypes[] = {-1, POLYHEAD_FLOAT16, POLYHEAD_BOOL, 7, INT_MAX, INT_MIN};
  int i;
  size_t w;
  memset(g_outputs, kUntouched, sizeof g_outputs);
  for (i = kSinks; i <= kKeyIds; ++i) {
    arguments a = masked_arguments();
    settle(&a);
    for (w = 0; w < sizeof dtypes / sizeof dtypes[0]; ++w) {
      a.tensors[i].dtype = dtypes[w];
      expect_refused(call_masked, &a, "a wrong dtype", i);
    }
    a = masked_arguments();
    settle(&a);
    a.tensors[i].rank = 3;
    expect_refused(call_masked, &a, "a wrong rank", i);
    a.tensors[i].rank = 1;
    spoil_sizes(call_masked, &a, i);
    a.missing = i;
    if (i != kSinks) expect_refused(call_masked, &a, "not given", i);
    a.missing = -1;
    settle(&a);
    g_lengths[0] = i == kLengths ? kKeys + 1 : 0;
    if (i == kLengths) expect_refused(call_masked, &a, "a length beyond the keys", i);
    g_lengths[0] = i == kLengths ? -1 : 0;
    if (i == kLengths) expect_refused(call_masked, &a, "a negative length", i);
    g_lengths[0] = 0;
  }
}

static void test_numbers(void) {
  arguments a = masked_arguments();
  polyhead_mask mask;
  polyhead_attention_options options;
  settle(&a);
  memset(g_outputs, kUntouched, sizeof g_outputs);
  memset(&mask, 0, sizeof mask);
  memset(&options, 0, sizeof options);
  mask.struct_size = sizeof mask;
  options.struct_size = sizeof options;
  options.masks = &mask;
  options.num_masks = 1;
  mask.kind = POLYHEAD_MASK_WINDOW;
#define REFUSED(words, field, value) \
  (field = (value), EXPECT_FAILS(INVALID, words, call_with(&options, &a)), field = 0)
  REFUSED("left", mask.left, -2);
  REFUSED("left", mask.left, INT64_MAX);
  REFUSED("right", mask.right, INT64_MIN);
  REFUSED("offset", mask.query_offset, INT64_MAX);
  REFUSED("offset", mask.query_offset, INT64_MIN);
  mask.causal_align = POLYHEAD_BOTTOM_RIGHT;
  REFUSED("query_offset", mask.query_offset, 1);
  REFUSED("causal_align", mask.causal_align, 2);
  REFUSED("kind", mask.kind, 7);
  mask.kind = POLYHEAD_MASK_WINDOW;
  REFUSED("softcap", options.softcap, -1);
  expect_untouched("numbers", -1);
  EXPECT_OK(call_with(&options, &a));
#undef REFUSED
}

static void keep_scores(const polyhead_score_block* scores, void* context) {
  (void)scores;
  (void)context;
}

static void test_score_mod(void) {
  arguments a = masked_arguments();
  polyhead_score_mod mod;
  polyhead_attention_options options;
  size_t i;
  settle(&a);
  memset(g_outputs, kUntouched, sizeof g_outputs);
  memset(&mod, 0, sizeof mod);
  memset(&options, 0, sizeof options);
  mod.struct_size = sizeof mod;
  options.struct_size = sizeof options;
  options.score_mod = &mod;
  EXPECT_FAILS(INVALID, "score_mod.forward: is null", call_with(&options, &a));
  mod.forward = keep_scores;
  for (i = 0; i < sizeof kWrongSizes / sizeof kWrongSizes[0]; ++i) {
    mod.struct_size = kWrongSizes[i];
    EXPECT_FAILS(INVALID, "struct_size", call_with(&options, &a));
  }
  mod.struct_size = sizeof(size_t); /* ends before forward */
  EXPECT_FAILS(INVALID, "score_mod.forward: is null", call_with(&options, &a));
  mod.struct_size = sizeof mod;
  expect_untouched("score_mod", -1);
  EXPECT_OK(call_with(&options, &a));
}

static void test_packed(void) {
  static const int32_t wrong[][3] = {
      {1, 2, kLen}, {0, 2, kLen - 1}, {0, 2, kLen + 1}, {0, -1, kLen}, {0, kLen + 1, kLen}};
  const int64_t three[] = {3};
  arguments a = masked_arguments();
  polyhead_attention_options options;
  polyhead_tensor bounds;
  int32_t numbers[3];
  size_t i;
  settle(&a);
  memset(g_outputs, kUntouched, sizeof g_outputs);
  memset(&options, 0, sizeof options);
  a.shapes[0][0] = a.shapes[1][0] = a.shapes[2][0] = a.shapes[3][0] = 1;
  a.shapes[1][2] = a.shapes[2][2] = kLen;
  bounds = a.tensors[kLengths];
  bounds.data = numbers;
  bounds.shape = three;
  options.struct_size = sizeof options;
  options.cu_seqlens_q = &bounds;
  EXPECT_FAILS(INVALID, "cu_seqlens_k: not given", call_with(&options, &a));
  options.cu_seqlens_k = &bounds;
  for (i = 0; i < sizeof wrong / sizeof wrong[0]; ++i) {
    memcpy(numbers, wrong[i], sizeof numbers);
    EXPECT_FAILS(INVALID, "cu_seqlens_q", call_with(&options, &a));
  }
  numbers[1] = 2;
  numbers[2] = kLen;
  a.shapes[0][0] = a.shapes[1][0] = a.shapes[2][0] = a.shapes[3][0] = 2;
  EXPECT_FAILS(INVALID, "batch is 2", call_with(&options, &a));
  a.shapes[0][0] = a.shapes[1][0] = a.shapes[2][0] = a.shapes[3][0] = 1;
  options.weights = POLYHEAD_WEIGHTS_AVERAGE;
  EXPECT_FAILS(INVALID, "weights", call_with(&options, &a));
  options.weights = 0;
  expect_untouched("packed", -1);
  EXPECT_OK(call_with(&options, &a));
}

/* Structs of 0.2.0 end earlier: all that came later is off. */
static void test_older_structs(void) {
  arguments a = masked_arguments();
  polyhead_mask mask;
  polyhead_attention_options options;
  settle(&a);
  memset(&mask, 0xff, sizeof mask);
  memset(&options, 0xff, sizeof options);
  memset(&mask, 0, offsetof(polyhead_mask, key_ids));
  memset(&options, 0, offsetof(polyhead_attention_options, softcap));
  mask.struct_size = offsetof(polyhead_mask, key_ids);
  mask.kind = POLYHEAD_MASK_CAUSAL;
  options.struct_size = offsetof(polyhead_attention_options, softcap);
  options.masks = &mask;
  options.num_masks = 1;
  EXPECT_OK(call_with(&options, &a));
}

int main(void) {
  test_forward(call_masked, masked_arguments, 4, 4);
  test_tensors();
  test_numbers();
  test_score_mod();
  test_packed();
  test_older_structs();
  return verdict("c_api_masks_hostile_test");
}
