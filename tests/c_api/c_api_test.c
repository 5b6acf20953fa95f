/* Every function of the C ABI in ordinary use, compiled as C99. That the numbers are those of the
 * C++ API is c_api_values_test.cc's to show. */
#include <polyhead/c_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "expect.h"

enum { kBatch = 2, kLen = 3, kEmbed = 4, kHeads = 2, kNumbers = kBatch * kLen * kEmbed };

static const int64_t kShape[] = {kBatch, kLen, kEmbed};
static const int64_t kWeightsShape[] = {kBatch, kHeads, kLen, kLen};

static polyhead_tensor tensor(void* data, int32_t rank, const int64_t* shape) {
  const polyhead_tensor result = {data, POLYHEAD_FLOAT32, rank, shape, NULL};
  return result;
}

static void fill(float* data, size_t count, float start) {
  size_t i;
  for (i = 0; i < count; ++i) data[i] = start + 0.25f * (float)(i % 7);
}

static void test_runtime(void) {
  int32_t threads = 0, again = 0;
  EXPECT(strcmp(polyhead_version(), "0.3.0") == 0);
  EXPECT(strcmp(polyhead_last_error(), "") == 0);
  EXPECT(strcmp(polyhead_status_name(POLYHEAD_OK), "ok") == 0);
  EXPECT(strcmp(polyhead_status_name(POLYHEAD_MEMORY), "memory") == 0);
  EXPECT(strcmp(polyhead_status_name(6), "unknown status") == 0);
  EXPECT(strcmp(polyhead_status_name(-1), "unknown status") == 0);
  EXPECT_OK(polyhead_get_num_threads(&threads));
  EXPECT_OK(polyhead_set_num_threads(2));
  EXPECT_OK(polyhead_get_num_threads(&again));
  EXPECT(again == 2);
  EXPECT_OK(polyhead_set_num_threads(threads));
  EXPECT(polyhead_isa() != NULL);
  if (polyhead_isa() != NULL) {
    char isa[32] = {0};
    strncpy(isa, polyhead_isa(), sizeof isa - 1);
    EXPECT_OK(polyhead_force_isa("baseline"));
    EXPECT(strcmp(polyhead_isa(), "baseline") == 0);
    EXPECT_OK(polyhead_force_isa(isa));
    EXPECT(strcmp(polyhead_isa(), isa) == 0);
  }
}

static void test_attention(void) {
  /* One key: its weight is 1, and the output is its value. */
  float query[kNumbers], key[kBatch * kEmbed], value[kBatch * kEmbed], out[kNumbers];
  float lse[kBatch * kLen];
  const int64_t shape[] = {kBatch, 1, kLen, kEmbed}, one_key[] = {kBatch, 1, 1, kEmbed};
  const polyhead_tensor q = tensor(query, 4, shape), k = tensor(key, 4, one_key);
  const polyhead_tensor v = tensor(value, 4, one_key), o = tensor(out, 4, shape);
  const polyhead_tensor l = tensor(lse, 3, shape);
  const double scale = 0;
  polyhead_attention_options options;
  polyhead_attention_outputs outputs;
  int i;
  fill(query, kNumbers, -1);
  fill(key, kBatch * kEmbed, 1);
  fill(value, kBatch * kEmbed, 2);
  memset(&options, 0, sizeof options);
  memset(&outputs, 0, sizeof outputs);
  options.struct_size = sizeof options;
  options.scale = &scale;
  outputs.struct_size = sizeof outputs;
  outputs.out = &o;
  EXPECT_OK(polyhead_attention_forward(NULL, &q, &k, &v, &outputs));
  for (i = 0; i < kNumbers; ++i) {
    EXPECT(out[i] == value[i / (kLen * kEmbed) * kEmbed + i % kEmbed]);
  }
  outputs.lse = &l;
  EXPECT_OK(polyhead_attention_forward(&options, &q, &k, &v, &outputs));
  for (i = 0; i < kBatch * kLen; ++i) EXPECT(lse[i] == 0); /* log(exp(0 * score)) */
}

/* A state dict of zeros, but for the bias of the last projection: any input gives that bias. */
static void test_mha_from_parameters(void) {
  static float zeros[3 * kEmbed * kEmbed];
  float bias[kEmbed] = {1, 2, 3, 4}, input[kNumbers], out[kNumbers];
  const int64_t in_weight[] = {3 * kEmbed, kEmbed}, in_bias[] = {3 * kEmbed};
  const int64_t out_weight[] = {kEmbed, kEmbed}, out_bias[] = {kEmbed};
  const polyhead_tensor x = tensor(input, 3, kShape), y = tensor(out, 3, kShape);
  polyhead_parameter parameters[4];
  polyhead_mha_config config;
  polyhead_mha* mha = NULL;
  int i;
  fill(input, kNumbers, 0);
  parameters[0].name = "out_proj.bias";
  parameters[0].tensor = tensor(bias, 1, out_bias);
  parameters[1].name = "in_proj_weight";
  parameters[1].tensor = tensor(zeros, 2, in_weight);
  parameters[2].name = "in_proj_bias";
  parameters[2].tensor = tensor(zeros, 1, in_bias);
  parameters[3].name = "out_proj.weight";
  parameters[3].tensor = tensor(zeros, 2, out_weight);
  memset(&config, 0, sizeof config);
  config.struct_size = sizeof config;
  config.embed_dim = kEmbed;
  config.num_heads = kHeads;
  config.layout = POLYHEAD_BATCH_FIRST;
  EXPECT_FAILS(POLYHEAD_INVALID_ARGUMENT, "missing: out_proj.weight",
               polyhead_mha_create(&config, parameters, 3, &mha));
  EXPECT(mha == NULL);
  EXPECT_OK(polyhead_mha_create(&config, parameters, 4, &mha));
  EXPECT_OK(polyhead_mha_forward(mha, NULL, &x, &x, &x, &y, NULL));
  for (i = 0; i < kNumbers; ++i) EXPECT(out[i] == bias[i % kEmbed]);
  bias[0] = 7; /* the module has its own copy ... */
  EXPECT_OK(polyhead_mha_forward(mha, NULL, &x, &x, &x, &y, NULL));
  EXPECT(out[0] == 1);
  EXPECT_OK(polyhead_mha_set_parameter(mha, "out_proj.bias", &parameters[0].tensor));
  EXPECT_OK(polyhead_mha_forward(mha, NULL, &x, &x, &x, &y, NULL));
  EXPECT(out[0] == 7); /* ... until it is given another */
  polyhead_mha_destroy(mha);
}

static void check_parameters(const polyhead_mha* mha) {
  polyhead_parameter parameter;
  polyhead_tensor value;
  size_t count = 0, i;
  EXPECT_OK(polyhead_mha_num_parameters(mha, &count));
  EXPECT(count == 4);
  for (i = 0; i < count; ++i) {
    EXPECT_OK(polyhead_mha_parameter_at(mha, i, &parameter));
    EXPECT_OK(polyhead_mha_get_parameter(mha, parameter.name, &value));
    EXPECT(value.data == parameter.tensor.data && value.rank == parameter.tensor.rank);
    EXPECT(value.dtype == POLYHEAD_FLOAT32);
  }
  EXPECT_OK(polyhead_mha_parameter_at(mha, 0, &parameter));
  EXPECT(strcmp(parameter.name, "in_proj_weight") == 0);
  EXPECT(parameter.tensor.rank == 2 && parameter.tensor.shape[0] == 3 * kEmbed);
}

static void test_mha_file(void) {
  const char* path = "c_api_test_mha.safetensors";
  float input[kNumbers], first[kNumbers], second[kNumbers];
  const polyhead_tensor x = tensor(input, 3, kShape), y = tensor(first, 3, kShape);
  const polyhead_tensor z = tensor(second, 3, kShape);
  polyhead_mha_config config;
  polyhead_load_options load;
  polyhead_forward_options options;
  polyhead_mha *mha = NULL, *loaded = NULL;
  fill(input, kNumbers, -1);
  memset(&config, 0, sizeof config);
  memset(&load, 0, sizeof load);
  memset(&options, 0, sizeof options);
  config.struct_size = sizeof config;
  config.embed_dim = kEmbed;
  config.num_heads = kHeads;
  config.layout = POLYHEAD_SEQUENCE_FIRST;
  config.seed = 5;
  load.struct_size = sizeof load;
  load.layout = POLYHEAD_SEQUENCE_FIRST;
  load.prefix = "layer.";
  options.struct_size = sizeof options;
  EXPECT_OK(polyhead_mha_create(&config, NULL, 0, &mha));
  check_parameters(mha);
  EXPECT_OK(polyhead_mha_save(mha, path, "layer."));
  EXPECT_OK(polyhead_mha_load(path, &load, &loaded));
  memset(&config, 0, sizeof config);
  config.struct_size = sizeof config;
  EXPECT_OK(polyhead_mha_get_config(loaded, &config));
  EXPECT(config.embed_dim == kEmbed && config.num_heads == kHeads && config.kdim == kEmbed);
  EXPECT(config.layout == POLYHEAD_SEQUENCE_FIRST && config.no_bias == 0);
  EXPECT_OK(polyhead_mha_forward(mha, &options, &x, &x, &x, &y, NULL));
  EXPECT_OK(polyhead_mha_forward(loaded, NULL, &x, &x, &x, &z, NULL));
  EXPECT(memcmp(first, second, sizeof first) == 0);
  polyhead_mha_destroy(mha);
  polyhead_mha_destroy(loaded);
  remove(path);
}

static void test_scratch(void) {
  const char* path = "c_api_test_scratch.safetensors";
  float input[kNumbers], first[kNumbers], second[kNumbers];
  float mask[kLen] = {0, 0, 1}, weights[kBatch * kHeads * kLen * kLen];
  const int64_t mask_shape[] = {kLen};
  const polyhead_tensor x = tensor(input, 3, kShape), y = tensor(first, 3, kShape);
  const polyhead_tensor z = tensor(second, 3, kShape), w = tensor(weights, 4, kWeightsShape);
  const polyhead_tensor m = tensor(mask, 1, mask_shape);
  const polyhead_scratch_forward_options options = {sizeof options, &m};
  const polyhead_scratch_config config = {sizeof config,      kEmbed,          kHeads, 3,
                                          POLYHEAD_HEAD_FULL, POLYHEAD_FLOAT32};
  polyhead_scratch_config got;
  polyhead_scratch *scratch = NULL, *loaded = NULL;
  polyhead_parameter parameter;
  polyhead_tensor value;
  size_t count = 0;
  fill(input, kNumbers, -1);
  EXPECT_OK(polyhead_scratch_create(&config, NULL, 0, &scratch));
  EXPECT_OK(polyhead_scratch_num_parameters(scratch, &count));
  EXPECT(count == 8);
  EXPECT_OK(polyhead_scratch_parameter_at(scratch, 6, &parameter));
  EXPECT(strcmp(parameter.name, "fc_out.weight") == 0);
  EXPECT_OK(polyhead_scratch_get_parameter(scratch, "q_linear.weight", &value));
  EXPECT(value.shape[0] == kHeads * kEmbed);
  EXPECT_OK(polyhead_scratch_set_parameter(scratch, "k_linear.weight", &value));
  EXPECT_OK(polyhead_scratch_save(scratch, path, NULL));
  EXPECT_OK(polyhead_scratch_load(path, NULL, &loaded));
  memset(&got, 0, sizeof got);
  got.struct_size = sizeof got;
  EXPECT_OK(polyhead_scratch_get_config(loaded, &got));
  EXPECT(got.embed_size == kEmbed && got.num_heads == kHeads);
  EXPECT(got.head_width == POLYHEAD_HEAD_FULL);
  EXPECT_OK(polyhead_scratch_forward(scratch, &options, &x, &x, &x, &y, &w));
  EXPECT(weights[2] == 0 && weights[0] > 0); /* the masked key */
  EXPECT_OK(polyhead_scratch_forward(loaded, &options, &x, &x, &x, &z, NULL));
  EXPECT(memcmp(first, second, sizeof first) == 0);
  polyhead_scratch_destroy(scratch);
  polyhead_scratch_destroy(loaded);
  remove(path);
}

static void one_after_the_other(void* context, size_t count, polyhead_parallel_task task,
                                void* argument) {
  size_t i;
  for (i = 0; i < count; ++i) task(argument, i);
  *(size_t*)context += count;
}

/* Large enough to be worth a second thread. */
static void test_lent_executor(void) {
  enum { kLong = 64, kWide = 64 };
  static float input[kLong * kWide], first[kLong * kWide], second[kLong * kWide];
  const int64_t shape[] = {1, kLong, kWide};
  const polyhead_tensor x = tensor(input, 3, shape), y = tensor(first, 3, shape);
  const polyhead_tensor z = tensor(second, 3, shape);
  const polyhead_scratch_config config = {sizeof config,       kWide,           4, 0,
                                          POLYHEAD_HEAD_SPLIT, POLYHEAD_FLOAT32};
  polyhead_scratch* scratch = NULL;
  size_t tasks = 0;
  fill(input, kLong * kWide, -1);
  EXPECT_OK(polyhead_set_num_threads(2));
  EXPECT_OK(polyhead_scratch_create(&config, NULL, 0, &scratch));
  EXPECT_OK(polyhead_scratch_forward(scratch, NULL, &x, &x, &x, &y, NULL));
  EXPECT_OK(polyhead_lend_executor(one_after_the_other, &tasks));
  EXPECT_OK(polyhead_scratch_forward(scratch, NULL, &x, &x, &x, &z, NULL));
  EXPECT_OK(polyhead_lend_executor(NULL, NULL));
  EXPECT(tasks > 0);
  EXPECT(memcmp(first, second, sizeof first) == 0);
  polyhead_scratch_destroy(scratch);
}

int main(void) {
  test_runtime();
  test_attention();
  test_mha_from_parameters();
  test_mha_file();
  test_scratch();
  test_lent_executor();
  return verdict("c_api_test");
}
