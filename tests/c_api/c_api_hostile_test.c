/* Every function of the C ABI with arguments that a mistaken or hostile caller may pass: each call
 * is a status and a message, and what it was to write stays as it was. Compiled as C99. */
#include <stdlib.h>

#include "hostile.h"

static unsigned char g_bools[kRoom];
static polyhead_mha* g_mha;
static polyhead_scratch* g_scratch;

/* query, key, value, out, weights, attn_mask, key_padding_mask */
static arguments mha_arguments(void) {
  const int64_t q[] = {kBatch, kLen, kEmbed}, k[] = {kBatch, kKeys, kEmbed};
  const int64_t w[] = {kBatch, kHeads, kLen, kKeys}, mask[] = {kLen, kKeys};
  const int64_t padding[] = {kBatch, kKeys};
  arguments a;
  a.missing = a.any_rank = -1;
  place(&a, 0, g_inputs, POLYHEAD_FLOAT32, 3, q);
  place(&a, 1, g_inputs, POLYHEAD_FLOAT32, 3, k);
  place(&a, 2, g_inputs, POLYHEAD_FLOAT32, 3, k);
  place(&a, 3, g_outputs[0], POLYHEAD_FLOAT32, 3, q);
  place(&a, 4, g_outputs[1], POLYHEAD_FLOAT32, 4, w);
  place(&a, 5, g_bools, POLYHEAD_BOOL, 2, mask);
  place(&a, 6, g_bools, POLYHEAD_BOOL, 2, padding);
  return a;
}

static polyhead_status call_mha(arguments* a) {
  polyhead_forward_options options;
  memset(&options, 0, sizeof options);
  options.struct_size = sizeof options;
  options.need_weights = POLYHEAD_WEIGHTS_PER_HEAD;
  options.attn_mask = at(a, 5);
  options.key_padding_mask = at(a, 6);
  return polyhead_mha_forward(g_mha, &options, at(a, 0), at(a, 1), at(a, 2), at(a, 3), at(a, 4));
}

/* query, key, value, out, weights, mask */
static arguments scratch_arguments(void) {
  const int64_t mask[] = {kBatch, kHeads, kLen, kKeys};
  arguments a = mha_arguments();
  place(&a, 5, g_inputs, POLYHEAD_FLOAT32, 4, mask);
  a.any_rank = 5;
  return a;
}

static polyhead_status call_scratch(arguments* a) {
  polyhead_scratch_forward_options options;
  options.struct_size = sizeof options;
  options.mask = at(a, 5);
  return polyhead_scratch_forward(g_scratch, &options, at(a, 0), at(a, 1), at(a, 2), at(a, 3),
                                  at(a, 4));
}

/* query, key, value, out, weights, boolean mask, additive mask, lse */
static arguments attention_arguments(void) {
  const int64_t q[] = {kBatch, kHeads, kLen, kEmbed}, k[] = {kBatch, kHeads, kKeys, kEmbed};
  const int64_t w[] = {kBatch, kHeads, kLen, kKeys}, mask[] = {kLen, kKeys};
  arguments a;
  a.missing = a.any_rank = -1;
  place(&a, 0, g_inputs, POLYHEAD_FLOAT32, 4, q);
  place(&a, 1, g_inputs, POLYHEAD_FLOAT32, 4, k);
  place(&a, 2, g_inputs, POLYHEAD_FLOAT32, 4, k);
  place(&a, 3, g_outputs[0], POLYHEAD_FLOAT32, 4, q);
  place(&a, 4, g_outputs[1], POLYHEAD_FLOAT32, 4, w);
  place(&a, 5, g_bools, POLYHEAD_BOOL, 2, mask);
  place(&a, 6, g_inputs, POLYHEAD_FLOAT32, 2, mask);
  place(&a, 7, g_outputs[2], POLYHEAD_FLOAT32, 3, q);
  return a;
}

static polyhead_status call_attention(arguments* a) {
  polyhead_mask masks[2];
  polyhead_attention_options options;
  polyhead_attention_outputs outputs;
  memset(masks, 0, sizeof masks);
  memset(&options, 0, sizeof options);
  masks[0].struct_size = masks[1].struct_size = sizeof masks[0];
  masks[0].tensor = at(a, 5);
  masks[1].kind = POLYHEAD_MASK_ADDITIVE;
  masks[1].tensor = at(a, 6);
  options.struct_size = sizeof options;
  options.masks = masks;
  options.num_masks = 2;
  options.weights = POLYHEAD_WEIGHTS_PER_HEAD;
  outputs.struct_size = sizeof outputs;
  outputs.out = at(a, 3);
  outputs.weights = at(a, 4);
  outputs.lse = at(a, 7);
  outputs.lse_rest = NULL;
  return polyhead_attention_forward(&options, at(a, 0), at(a, 1), at(a, 2), &outputs);
}

/* ---- Options ---- */

static void test_mha_options(void) {
  arguments a = mha_arguments();
  polyhead_forward_options options;
  size_t i;
  int field;
  a.tensors[0].shape = a.shapes[0];
  a.tensors[1].shape = a.tensors[2].shape = a.shapes[1];
  a.tensors[3].shape = a.shapes[3];
  memset(g_outputs, kUntouched, sizeof g_outputs);
  memset(&options, 0, sizeof options);
#define FORWARD(mha) \
  polyhead_mha_forward(mha, &options, at(&a, 0), at(&a, 1), at(&a, 2), at(&a, 3), NULL)
  for (i = 0; i < sizeof kWrongSizes / sizeof kWrongSizes[0]; ++i) {
    options.struct_size = kWrongSizes[i];
    EXPECT_FAILS(INVALID, "struct_size", FORWARD(g_mha));
  }
  options.struct_size = sizeof options;
  for (field = 0; field < 4; ++field) {
    int32_t* fields[4];
    fields[0] = &options.is_causal;
    fields[1] = &options.causal_align;
    fields[2] = &options.need_weights;
    fields[3] = &options.empty_rows;
    *fields[field] = 3;
    EXPECT_FAILS(INVALID, "options.", FORWARD(g_mha));
    *fields[field] = INT_MIN;
    EXPECT_FAILS(INVALID, "options.", FORWARD(g_mha));
    *fields[field] = 0;
  }
  options.need_weights = POLYHEAD_WEIGHTS_AVERAGE; /* and none passed */
  EXPECT_FAILS(INVALID, "weights", FORWARD(g_mha));
  options.need_weights = 0;
  EXPECT_FAILS(INVALID, "mha: is null", FORWARD(NULL));
  expect_untouched("options", -1);
  EXPECT_OK(FORWARD(g_mha));
#undef FORWARD
}

/* Structs of an older header, which end earlier, and of a newer one, which go on. */
static void test_struct_versions(void) {
  struct {
    polyhead_mha_config known;
    int64_t later[3];
  } config;
  polyhead_mha* mha = NULL;
  memset(&config, 0, sizeof config);
  config.known.embed_dim = kEmbed;
  config.known.num_heads = kHeads;
  config.known.layout = POLYHEAD_BATCH_FIRST;
  config.known.struct_size = sizeof config;
  EXPECT_OK(polyhead_mha_create(&config.known, NULL, 0, &mha));
  memset(&config.known, 0xff, sizeof config.known);
  config.known.struct_size = offsetof(polyhead_mha_config, kdim);
  EXPECT_OK(polyhead_mha_get_config(mha, &config.known));
  EXPECT(config.known.num_heads == kHeads);
  EXPECT(config.known.kdim == -1); /* beyond what the caller has */
  config.known.struct_size = sizeof config;
  config.later[1] = 7;
  EXPECT_OK(polyhead_mha_get_config(mha, &config.known));
  EXPECT(config.known.kdim == kEmbed && config.later[1] == 0);
  polyhead_mha_destroy(mha);
  mha = NULL;
  config.later[2] = 1;
  EXPECT_FAILS(POLYHEAD_UNSUPPORTED, "does not know",
               polyhead_mha_create(&config.known, NULL, 0, &mha));
  config.known.layout = 0;
  config.known.kdim = -1; /* not read by the next */
  config.known.struct_size = offsetof(polyhead_mha_config, kdim);
  EXPECT_FAILS(INVALID, "layout", polyhead_mha_create(&config.known, NULL, 0, &mha));
  EXPECT(mha == NULL);
}

static polyhead_mha_config right_config(void) {
  polyhead_mha_config right;
  memset(&right, 0, sizeof right);
  right.struct_size = sizeof right;
  right.embed_dim = kEmbed;
  right.num_heads = kHeads;
  right.layout = POLYHEAD_BATCH_FIRST;
  return right;
}

/* Of `right` with one field wrong. */
#define REFUSED(field, wrong_value)                                    \
  (config = right, config.field = (wrong_value),                       \
   EXPECT(polyhead_mha_create(&config, NULL, 0, &mha) != POLYHEAD_OK), \
   EXPECT(polyhead_last_error()[0] != '\0'), EXPECT(mha == NULL))

/* What torch's class has not. */
static void test_mha_heads(void) {
  polyhead_mha_config right = right_config(), config;
  polyhead_mha* mha = NULL;
  REFUSED(num_kv_heads, -1);
  REFUSED(num_kv_heads, 3);
  REFUSED(head_dim, -1);
  REFUSED(head_dim, INT64_MAX / 2);
  REFUSED(qk_norm, 2);
  REFUSED(qk_norm_eps, -1);
  REFUSED(rope_pairs, 3);
  REFUSED(rope_pairs, -1);
  REFUSED(rope_base, 500000); /* without pairs */
  right.rope_pairs = POLYHEAD_ROPE_HALVES;
  REFUSED(rope_base, -1);
  REFUSED(rope_base, 1e300);
  REFUSED(rope_rotary_dim, -2);
  REFUSED(rope_rotary_dim, INT64_MAX - 1);
  REFUSED(rope_scaling, 4);
  REFUSED(rope_factor, 2); /* without a scaling */
  right.rope_scaling = POLYHEAD_ROPE_SCALING_LLAMA3;
  REFUSED(rope_factor, -1);
  REFUSED(rope_low_freq_factor, -1);
  REFUSED(rope_high_freq_factor, 1);
  REFUSED(rope_original_length, -1);
}

static void test_mha_config(void) {
  static const int64_t wrong[] = {0, -1, INT64_MIN, INT64_MAX, INT64_MAX / 2, INT64_MAX / 8};
  polyhead_mha_config right = right_config(), config;
  polyhead_mha* mha = NULL;
  size_t i;
  for (i = 0; i < sizeof wrong / sizeof wrong[0]; ++i) {
    REFUSED(embed_dim, wrong[i]);
    REFUSED(num_heads, wrong[i]);
    if (i > 0) REFUSED(kdim, wrong[i]); /* 0 is the default */
    if (i > 0) REFUSED(vdim, wrong[i]);
  }
  REFUSED(num_heads, 3);
  REFUSED(layout, 0);
  REFUSED(layout, 3);
  REFUSED(layout, INT_MIN);
  REFUSED(dtype, POLYHEAD_FLOAT16);
  REFUSED(dtype, POLYHEAD_INT64);
  REFUSED(dtype, -1);
  REFUSED(no_bias, 2);
  REFUSED(add_bias_kv, -1);
  REFUSED(add_zero_attn, 256);
  REFUSED(reserved, 1);
  REFUSED(reserved_too, 1);
  REFUSED(dropout, 1.5);
  REFUSED(dropout, -1);
  for (i = 0; i < sizeof kWrongSizes / sizeof kWrongSizes[0]; ++i) {
    REFUSED(struct_size, kWrongSizes[i]);
  }
#undef REFUSED
  EXPECT_FAILS(INVALID, "config: is null", polyhead_mha_create(NULL, NULL, 0, &mha));
  EXPECT_FAILS(INVALID, "out: is null", polyhead_mha_create(&right, NULL, 0, NULL));
  EXPECT_FAILS(INVALID, "parameters: is null", polyhead_mha_create(&right, NULL, 4, &mha));
  EXPECT_FAILS(INVALID, "num_parameters", polyhead_mha_create(&right, NULL, SIZE_MAX, &mha));
  EXPECT(mha == NULL);
}

/* More memory than there are addresses. Sanitizers end the process at such a request. */
static void test_too_large(void) {
#ifndef POLYHEAD_SANITIZED
  const polyhead_scratch_config scratch_config = {sizeof scratch_config, 1 << 23, 1, 0, 0, 0};
  polyhead_mha_config config;
  polyhead_mha* mha = NULL;
  polyhead_scratch* scratch = NULL;
  memset(&config, 0, sizeof config);
  config.struct_size = sizeof config;
  config.embed_dim = 1 << 23;
  config.num_heads = 1;
  config.layout = POLYHEAD_BATCH_FIRST;
  EXPECT_FAILS(POLYHEAD_MEMORY, "out of memory", polyhead_mha_create(&config, NULL, 0, &mha));
  EXPECT_FAILS(POLYHEAD_MEMORY, "out of memory",
               polyhead_scratch_create(&scratch_config, NULL, 0, &scratch));
  EXPECT(mha == NULL && scratch == NULL);
#endif
}

static void test_scratch_config(void) {
  static const int64_t wrong[] = {0, -1, INT64_MIN, INT64_MAX, INT64_MAX / 2, INT64_MAX / 8};
  const polyhead_scratch_config right = {sizeof right, kEmbed, kHeads, 0, 0, 0};
  polyhead_scratch_config config;
  polyhead_scratch* scratch = NULL;
  size_t i;
#define REFUSED(field, wrong_value)                                            \
  (config = right, config.field = (wrong_value),                               \
   EXPECT(polyhead_scratch_create(&config, NULL, 0, &scratch) != POLYHEAD_OK), \
   EXPECT(polyhead_last_error()[0] != '\0'), EXPECT(scratch == NULL))
  for (i = 0; i < sizeof wrong / sizeof wrong[0]; ++i) {
    REFUSED(embed_size, wrong[i]);
    REFUSED(num_heads, wrong[i]);
  }
  REFUSED(num_heads, 3);
  REFUSED(head_width, 2);
  REFUSED(head_width, INT_MIN);
  REFUSED(dtype, POLYHEAD_BOOL);
  REFUSED(dtype, 7);
  for (i = 0; i < sizeof kWrongSizes / sizeof kWrongSizes[0]; ++i) {
    REFUSED(struct_size, kWrongSizes[i]);
  }
#undef REFUSED
  EXPECT_FAILS(INVALID, "config: is null", polyhead_scratch_create(NULL, NULL, 0, &scratch));
  EXPECT_FAILS(INVALID, "out: is null", polyhead_scratch_create(&right, NULL, 0, NULL));
  EXPECT_FAILS(INVALID, "parameters", polyhead_scratch_create(&right, NULL, 65, &scratch));
  EXPECT(scratch == NULL);
}

static void test_attention_options(void) {
  arguments a = attention_arguments();
  const double infinite = 1e308 * 10;
  polyhead_mask masks[2];
  polyhead_attention_options options;
  polyhead_attention_outputs outputs;
  size_t i;
  for (i = 0; i < kTensors; ++i) a.tensors[i].shape = a.shapes[i];
  memset(masks, 0, sizeof masks);
  memset(&options, 0, sizeof options);
  memset(&outputs, 0, sizeof outputs);
  memset(g_outputs, kUntouched, sizeof g_outputs);
  masks[0].struct_size = masks[1].struct_size = sizeof masks[0];
  masks[0].kind = masks[1].kind = POLYHEAD_MASK_CAUSAL;
  options.struct_size = sizeof options;
  options.masks = masks;
  options.num_masks = 2;
  outputs.struct_size = sizeof outputs;
  outputs.out = at(&a, 3);
#define FORWARD() polyhead_attention_forward(&options, at(&a, 0), at(&a, 1), at(&a, 2), &outputs)
#define REFUSED(field, wrong_value, right_value) \
  (field = (wrong_value), EXPECT_FAILS(INVALID, "", FORWARD()), field = (right_value))
  for (i = 0; i < sizeof kWrongSizes / sizeof kWrongSizes[0]; ++i) {
    REFUSED(options.struct_size, kWrongSizes[i], sizeof options);
    REFUSED(outputs.struct_size, kWrongSizes[i], sizeof outputs);
    REFUSED(masks[0].struct_size, kWrongSizes[i], sizeof masks[0]);
    REFUSED(masks[1].struct_size, kWrongSizes[i], sizeof masks[0]);
  }
  REFUSED(options.num_masks, SIZE_MAX, 2);
  REFUSED(options.masks, NULL, masks);
  REFUSED(options.weights, 3, 0);
  REFUSED(options.weights, POLYHEAD_WEIGHTS_AVERAGE, 0); /* and none passed */
  REFUSED(options.empty_rows, -1, 0);
  REFUSED(options.plan, "no such plan", NULL);
  REFUSED(options.scale, &infinite, NULL);
  REFUSED(options.dropout_p, 1.5, 0);
  REFUSED(options.reserved, 1, 0);
  REFUSED(masks[1].kind, 7, POLYHEAD_MASK_CAUSAL);
  REFUSED(masks[1].causal_align, 2, 0);
  REFUSED(masks[1].reserved, 1, 0);
  REFUSED(masks[0].kind, POLYHEAD_MASK_BOOLEAN, POLYHEAD_MASK_CAUSAL); /* without a tensor */
  masks[0].kind = POLYHEAD_MASK_BOOLEAN;
  masks[0].tensor = at(&a, 5);
  REFUSED(masks[0].sense, 2, 0);
  EXPECT_FAILS(INVALID, "outputs: is null",
               polyhead_attention_forward(NULL, at(&a, 0), at(&a, 1), at(&a, 2), NULL));
  expect_untouched("options", -1);
  EXPECT_OK(FORWARD());
#undef REFUSED
#undef FORWARD
}

/* ---- Files ---- */

static void test_load_options(const char* path) {
  const polyhead_name half_a_name = {"q", NULL};
  polyhead_load_options options;
  polyhead_mha* mha = NULL;
  size_t i;
  memset(&options, 0, sizeof options);
  options.struct_size = sizeof options;
  options.layout = POLYHEAD_BATCH_FIRST;
#define REFUSED(field, wrong_value, right_value)                       \
  (options.field = (wrong_value),                                      \
   EXPECT_FAILS(INVALID, "", polyhead_mha_load(path, &options, &mha)), \
   options.field = (right_value), EXPECT(mha == NULL))
  for (i = 0; i < sizeof kWrongSizes / sizeof kWrongSizes[0]; ++i) {
    REFUSED(struct_size, kWrongSizes[i], sizeof options);
  }
  REFUSED(num_heads, -1, 0);
  REFUSED(num_heads, 3, 0);
  REFUSED(num_heads, INT64_MAX, 0);
  REFUSED(prefix, "nothing.under.this.", NULL);
  REFUSED(layout, 3, POLYHEAD_BATCH_FIRST);
  REFUSED(map, 4, 0);
  REFUSED(map, -1, 0);
  REFUSED(add_zero_attn, 2, 0);
  REFUSED(reserved, -1, 0);
  REFUSED(dropout, -0.5, 0);
  REFUSED(num_names, SIZE_MAX, 0);
  REFUSED(num_names, 1, 0); /* and names is null */
  options.num_names = 1;
  REFUSED(names, &half_a_name, NULL);
  options.num_names = 0;
#undef REFUSED
  EXPECT_FAILS(INVALID, "path: is null", polyhead_mha_load(NULL, &options, &mha));
  EXPECT_FAILS(INVALID, "out: is null", polyhead_mha_load(path, &options, NULL));
  EXPECT_FAILS(POLYHEAD_FILE, "no_such_file", polyhead_mha_load("no_such_file", &options, &mha));
  EXPECT_FAILS(POLYHEAD_FILE, "", polyhead_mha_load(".", &options, &mha));
  EXPECT_FAILS(POLYHEAD_FILE, "", polyhead_mha_load("", &options, &mha));
  EXPECT(mha == NULL);
  EXPECT_OK(polyhead_mha_load(path, &options, &mha));
  polyhead_mha_destroy(mha);
  EXPECT_OK(polyhead_mha_load(path, NULL, &mha)); /* the file says its layout */
  polyhead_mha_destroy(mha);
}

static void test_files(void) {
  const char* path = "c_api_hostile_test.safetensors";
  polyhead_scratch* scratch = NULL;
  EXPECT_FAILS(INVALID, "path: is null", polyhead_mha_save(g_mha, NULL, NULL));
  EXPECT_FAILS(INVALID, "is null", polyhead_mha_save(NULL, path, NULL));
  EXPECT_FAILS(POLYHEAD_FILE, "no_such_folder",
               polyhead_mha_save(g_mha, "no_such_folder/file", NULL));
  EXPECT_FAILS(INVALID, "path: is null", polyhead_scratch_save(g_scratch, NULL, NULL));
  EXPECT_FAILS(INVALID, "is null", polyhead_scratch_save(NULL, path, NULL));
  EXPECT_OK(polyhead_mha_save(g_mha, path, NULL));
  test_load_options(path);
  EXPECT_FAILS(INVALID, "", polyhead_scratch_load(path, NULL, &scratch)); /* the other class */
  EXPECT_FAILS(INVALID, "path: is null", polyhead_scratch_load(NULL, NULL, &scratch));
  EXPECT_FAILS(INVALID, "out: is null", polyhead_scratch_load(path, NULL, NULL));
  EXPECT_FAILS(POLYHEAD_FILE, "", polyhead_scratch_load("no_such_file", NULL, &scratch));
  EXPECT(scratch == NULL);
  remove(path);
}

/* ---- Parameters and the rest ---- */

static void test_parameters(void) {
  static float numbers[kRoom];
  const int64_t shape[] = {kEmbed}, other[] = {kEmbed + 1};
  polyhead_tensor right = {numbers, POLYHEAD_FLOAT32, 1, NULL, NULL}, wrong;
  polyhead_parameter parameter = {NULL, {numbers, -9, -9, NULL, NULL}};
  polyhead_tensor* value = &parameter.tensor;
  size_t count = 77;
  right.shape = shape;
  EXPECT_FAILS(INVALID, "is null", polyhead_mha_num_parameters(NULL, &count));
  EXPECT_FAILS(INVALID, "out: is null", polyhead_mha_num_parameters(g_mha, NULL));
  EXPECT_FAILS(INVALID, "index", polyhead_mha_parameter_at(g_mha, 4, &parameter));
  EXPECT_FAILS(INVALID, "index", polyhead_mha_parameter_at(g_mha, SIZE_MAX, &parameter));
  EXPECT_FAILS(INVALID, "is null", polyhead_mha_parameter_at(NULL, 0, &parameter));
  EXPECT_FAILS(INVALID, "out: is null", polyhead_mha_parameter_at(g_mha, 0, NULL));
  EXPECT_FAILS(INVALID, "bias_q", polyhead_mha_get_parameter(g_mha, "bias_q", value));
  EXPECT_FAILS(INVALID, "name: is null", polyhead_mha_get_parameter(g_mha, NULL, value));
  EXPECT_FAILS(INVALID, "is null", polyhead_mha_get_parameter(NULL, "out_proj.bias", value));
  EXPECT_FAILS(INVALID, "is null", polyhead_mha_get_parameter(g_mha, "out_proj.bias", NULL));
  EXPECT(count == 77 && value->rank == -9 && parameter.name == NULL);
  EXPECT_FAILS(INVALID, "bias_q", polyhead_mha_set_parameter(g_mha, "bias_q", &right));
  EXPECT_FAILS(INVALID, "is null", polyhead_mha_set_parameter(g_mha, NULL, &right));
  EXPECT_FAILS(INVALID, "is null", polyhead_mha_set_parameter(NULL, "out_proj.bias", &right));
  EXPECT_FAILS(INVALID, "is null", polyhead_mha_set_parameter(g_mha, "out_proj.bias", NULL));
  wrong = right;
  wrong.shape = other;
  EXPECT_FAILS(INVALID, "shape", polyhead_mha_set_parameter(g_mha, "out_proj.bias", &wrong));
  wrong = right;
  wrong.dtype = POLYHEAD_FLOAT64;
  EXPECT_FAILS(INVALID, "dtype", polyhead_mha_set_parameter(g_mha, "out_proj.bias", &wrong));
  EXPECT_OK(polyhead_mha_set_parameter(g_mha, "out_proj.bias", &right));
}

static void test_scratch_parameters(void) {
  static float numbers[kRoom];
  const int64_t other[] = {kEmbed + 1};
  const polyhead_tensor wrong = {numbers, POLYHEAD_FLOAT32, 1, other, NULL};
  polyhead_parameter parameter;
  polyhead_tensor* value = &parameter.tensor;
  polyhead_scratch_config config;
  size_t count = 77;
  config.struct_size = 4;
  EXPECT_FAILS(INVALID, "is null", polyhead_scratch_num_parameters(NULL, &count));
  EXPECT_FAILS(INVALID, "is null", polyhead_scratch_num_parameters(g_scratch, NULL));
  EXPECT_FAILS(INVALID, "index", polyhead_scratch_parameter_at(g_scratch, 8, &parameter));
  EXPECT_FAILS(INVALID, "is null", polyhead_scratch_parameter_at(NULL, 0, &parameter));
  EXPECT_FAILS(INVALID, "is null", polyhead_scratch_parameter_at(g_scratch, 0, NULL));
  EXPECT_FAILS(INVALID, "bias", polyhead_scratch_get_parameter(g_scratch, "bias", value));
  EXPECT_FAILS(INVALID, "is null", polyhead_scratch_get_parameter(g_scratch, NULL, value));
  EXPECT_FAILS(INVALID, "is null", polyhead_scratch_get_parameter(NULL, "fc_out.bias", value));
  EXPECT_FAILS(INVALID, "is null", polyhead_scratch_get_parameter(g_scratch, "fc_out.bias", NULL));
  EXPECT_FAILS(INVALID, "bias", polyhead_scratch_set_parameter(g_scratch, "bias", &wrong));
  EXPECT_FAILS(INVALID, "is null", polyhead_scratch_set_parameter(g_scratch, NULL, &wrong));
  EXPECT_FAILS(INVALID, "is null", polyhead_scratch_set_parameter(NULL, "fc_out.bias", &wrong));
  EXPECT_FAILS(INVALID, "shape", polyhead_scratch_set_parameter(g_scratch, "fc_out.bias", &wrong));
  EXPECT_FAILS(INVALID, "struct_size", polyhead_scratch_get_config(g_scratch, &config));
  EXPECT_FAILS(INVALID, "is null", polyhead_scratch_get_config(g_scratch, NULL));
  EXPECT_FAILS(INVALID, "is null", polyhead_scratch_get_config(NULL, &config));
  EXPECT_FAILS(INVALID, "is null", polyhead_mha_get_config(g_mha, NULL));
  EXPECT_FAILS(INVALID, "is null", polyhead_mha_get_config(NULL, NULL));
}

static void test_runtime(void) {
  static const int32_t wrong[] = {0, -1, 1025, INT_MAX, INT_MIN};
  static char long_name[100000];
  size_t i;
  for (i = 0; i < sizeof wrong / sizeof wrong[0]; ++i) {
    EXPECT_FAILS(INVALID, "n: got", polyhead_set_num_threads(wrong[i]));
  }
  EXPECT_FAILS(INVALID, "out: is null", polyhead_get_num_threads(NULL));
  EXPECT_FAILS(INVALID, "name: is null", polyhead_force_isa(NULL));
  EXPECT_FAILS(INVALID, "avx1024", polyhead_force_isa("avx1024"));
  memset(long_name, 'x', sizeof long_name - 1);
  EXPECT_FAILS(INVALID, "xxx", polyhead_force_isa(long_name));
  EXPECT(strlen(polyhead_last_error()) <= 1023); /* shortened, not overrun */
  polyhead_mha_destroy(NULL);
  polyhead_scratch_destroy(NULL);
}

/* Run with POLYHEAD_ISA and POLYHEAD_NUM_THREADS set to what they cannot be. */
static int test_environment(void) {
  const polyhead_scratch_config config = {sizeof config, kEmbed, kHeads, 0, 0, 0};
  polyhead_scratch* scratch = NULL;
  arguments a = attention_arguments();
  int32_t threads = 77;
  int i;
  for (i = 0; i < kTensors; ++i) a.tensors[i].shape = a.shapes[i];
  memset(g_outputs, kUntouched, sizeof g_outputs);
  EXPECT(polyhead_isa() == NULL);
  EXPECT(strstr(polyhead_last_error(), "POLYHEAD_ISA") != NULL);
  EXPECT_FAILS(INVALID, "POLYHEAD_NUM_THREADS", polyhead_get_num_threads(&threads));
  EXPECT(threads == 77);
  EXPECT_FAILS(INVALID, "POLYHEAD_", polyhead_scratch_create(&config, NULL, 0, &scratch));
  EXPECT(scratch == NULL);
  EXPECT_FAILS(INVALID, "POLYHEAD_", call_attention(&a));
  expect_untouched("environment", -1);
  return verdict("c_api_hostile_test environment");
}

int main(int count, char** words) {
  polyhead_mha_config config;
  const polyhead_scratch_config scratch_config = {sizeof scratch_config, kEmbed, kHeads, 0, 0, 0};
  if (count == 2 && strcmp(words[1], "environment") == 0) return test_environment();
  memset(&config, 0, sizeof config);
  config.struct_size = sizeof config;
  config.embed_dim = kEmbed;
  config.num_heads = kHeads;
  config.layout = POLYHEAD_BATCH_FIRST;
  EXPECT_OK(polyhead_mha_create(&config, NULL, 0, &g_mha));
  EXPECT_OK(polyhead_scratch_create(&scratch_config, NULL, 0, &g_scratch));
  test_forward(call_mha, mha_arguments, 5, 7);
  test_forward(call_scratch, scratch_arguments, 4, 6);
  test_forward(call_attention, attention_arguments, 7, 8);
  test_mha_options();
  test_struct_versions();
  test_mha_config();
  test_mha_heads();
  test_too_large();
  test_scratch_config();
  test_attention_options();
  test_files();
  test_parameters();
  test_scratch_parameters();
  test_runtime();
  polyhead_mha_destroy(g_mha);
  polyhead_scratch_destroy(g_scratch);
  return verdict("c_api_hostile_test");
}
