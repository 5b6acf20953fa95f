/* Training through the C ABI, compiled as C99: gradient descent that must lower a loss, and calls
 * that a mistaken or hostile caller may make. That the numbers are those of the C++ API is
 * c_api_training_values_test.cc's to show. */
#include <polyhead/c_api.h>
#include <stdint.h>

#include "expect.h"

#define INVALID POLYHEAD_INVALID_ARGUMENT

enum { kBatch = 2, kLen = 3, kEmbed = 4, kHeads = 2, kNumbers = kBatch * kLen * kEmbed };
enum { kParameters = 4, kLargest = 3 * kEmbed * kEmbed };

static const int64_t kShape[] = {kBatch, kLen, kEmbed};

static polyhead_tensor tensor(void* data, int32_t rank, const int64_t* shape) {
  const polyhead_tensor result = {data, POLYHEAD_FLOAT32, rank, shape, NULL};
  return result;
}

static void fill(float* data, size_t count, float start) {
  size_t i;
  for (i = 0; i < count; ++i) data[i] = start + 0.25f * (float)(i % 7);
}

static polyhead_mha* make_mha(double dropout) {
  polyhead_mha_config config;
  polyhead_mha* mha = NULL;
  memset(&config, 0, sizeof config);
  config.struct_size = sizeof config;
  config.embed_dim = kEmbed;
  config.num_heads = kHeads;
  config.layout = POLYHEAD_BATCH_FIRST;
  config.dropout = dropout;
  EXPECT_OK(polyhead_mha_create(&config, NULL, 0, &mha));
  return mha;
}

/* The sum of squares of `out`; `d_out` is its gradient. */
static double loss_of(const float* out, float* d_out) {
  double loss = 0;
  size_t i;
  for (i = 0; i < kNumbers; ++i) {
    loss += (double)out[i] * (double)out[i];
    d_out[i] = 2 * out[i];
  }
  return loss;
}

static void descend(polyhead_tensor parameter, const float* gradient) {
  float* values = (float*)parameter.data;
  int64_t count = 1, i;
  int32_t dim;
  for (dim = 0; dim < parameter.rank; ++dim) count *= parameter.shape[dim];
  for (i = 0; i < count; ++i) values[i] -= 0.02f * gradient[i];
}

static void test_descent(void) {
  static float memory[kParameters][kLargest];
  float input[kNumbers], output[kNumbers], d_output[kNumbers], d_input[kNumbers];
  const polyhead_tensor x = tensor(input, 3, kShape), y = tensor(output, 3, kShape);
  const polyhead_tensor d_y = tensor(d_output, 3, kShape), d_x = tensor(d_input, 3, kShape);
  polyhead_parameter parameters[kParameters], targets[kParameters];
  polyhead_training_context* context = NULL;
  polyhead_mha* mha = make_mha(0);
  polyhead_gradients gradients;
  double first = 0, last = 0;
  int step, i;
  fill(input, kNumbers, -1);
  memset(&gradients, 0, sizeof gradients);
  gradients.struct_size = sizeof gradients;
  gradients.d_out = &d_y;
  gradients.d_query = gradients.d_key = gradients.d_value = &d_x;
  gradients.parameters = targets;
  gradients.num_parameters = kParameters;
  EXPECT_OK(polyhead_training_context_create(&context));
  for (i = 0; i < kParameters; ++i) {
    EXPECT_OK(polyhead_mha_parameter_at(mha, (size_t)i, &parameters[i]));
    targets[i] = parameters[i];
    targets[i].tensor.data = memory[i];
  }
  for (step = 0; step < 30; ++step) {
    EXPECT_OK(polyhead_mha_forward_training(mha, NULL, &x, &x, &x, &y, NULL, context));
    last = loss_of(output, d_output);
    if (step == 0) first = last;
    EXPECT_OK(polyhead_mha_backward(mha, context, &gradients));
    for (i = 0; i < kParameters; ++i) descend(parameters[i].tensor, memory[i]);
    EXPECT_OK(polyhead_mha_repack(mha));
  }
  EXPECT(last < first / 4 && last >= 0);
  polyhead_training_context_destroy(context);
  polyhead_mha_destroy(mha);
}

static void test_dropout_state(void) {
  float input[kNumbers], output[kNumbers];
  const polyhead_tensor x = tensor(input, 3, kShape), y = tensor(output, 3, kShape);
  polyhead_training_context* context = NULL;
  polyhead_mha* mha = make_mha(0.5);
  uint64_t seed = 1;
  uint32_t call = 1;
  fill(input, kNumbers, 0);
  EXPECT_OK(polyhead_training_context_create(&context));
  EXPECT_OK(polyhead_training_context_get_dropout(context, &seed, &call));
  EXPECT(seed == 0 && call == 0);
  EXPECT_OK(polyhead_training_context_set_dropout(context, UINT64_MAX, 7, NULL));
  EXPECT_OK(polyhead_mha_forward_training(mha, NULL, &x, &x, &x, &y, NULL, context));
  EXPECT_OK(polyhead_training_context_get_dropout(context, &seed, &call));
  EXPECT(seed == UINT64_MAX && call == 8);
  EXPECT_FAILS(INVALID, "context: is null",
               polyhead_training_context_set_dropout(NULL, 0, 0, NULL));
  EXPECT_FAILS(INVALID, "context: is null",
               polyhead_training_context_get_dropout(NULL, &seed, &call));
  EXPECT_FAILS(INVALID, "seed: is null",
               polyhead_training_context_get_dropout(context, NULL, &call));
  EXPECT_FAILS(INVALID, "call: is null",
               polyhead_training_context_get_dropout(context, &seed, NULL));
  EXPECT_FAILS(INVALID, "out: is null", polyhead_training_context_create(NULL));
  polyhead_training_context_destroy(NULL);
  polyhead_training_context_destroy(context);
  polyhead_mha_destroy(mha);
}

/* None dropped at all is what a forward outside of training gives. */
static void test_dropout_of_the_context(void) {
  static const double kNone = 0, kTooMany = 1.5;
  float input[kNumbers], output[kNumbers], dropped[kNumbers], kept[kNumbers];
  const polyhead_tensor x = tensor(input, 3, kShape), y = tensor(output, 3, kShape),
                        some = tensor(dropped, 3, kShape), all = tensor(kept, 3, kShape);
  polyhead_training_context* context = NULL;
  polyhead_mha* mha = make_mha(0.5);
  fill(input, kNumbers, 0);
  EXPECT_OK(polyhead_training_context_create(&context));
  EXPECT_OK(polyhead_mha_forward(mha, NULL, &x, &x, &x, &y, NULL));
  EXPECT_OK(polyhead_training_context_set_dropout(context, 1, 0, &kNone));
  EXPECT_OK(polyhead_mha_forward_training(mha, NULL, &x, &x, &x, &all, NULL, context));
  EXPECT(memcmp(kept, output, sizeof kept) == 0);
  EXPECT_OK(polyhead_training_context_set_dropout(context, 1, 0, NULL));
  EXPECT_OK(polyhead_mha_forward_training(mha, NULL, &x, &x, &x, &some, NULL, context));
  EXPECT(memcmp(dropped, output, sizeof dropped) != 0);
  EXPECT_OK(polyhead_training_context_set_dropout(context, 1, 0, &kTooMany));
  EXPECT_FAILS(INVALID, "dropout.p: got 1.5",
               polyhead_mha_forward_training(mha, NULL, &x, &x, &x, &y, NULL, context));
  polyhead_training_context_destroy(context);
  polyhead_mha_destroy(mha);
}

static void test_scratch(void) {
  float input[kNumbers], output[kNumbers], d_input[kNumbers], d_bias[kEmbed];
  float weights[kBatch * kLen * kLen];
  const int64_t bias_shape[] = {kEmbed}, weights_shape[] = {kBatch, kLen, kLen};
  const polyhead_tensor x = tensor(input, 3, kShape), y = tensor(output, 3, kShape);
  const polyhead_tensor d_x = tensor(d_input, 3, kShape), w = tensor(weights, 3, weights_shape);
  const polyhead_scratch_config config = {sizeof config, kEmbed, kHeads, 3, 0, 0};
  polyhead_parameter bias = {"fc_out.bias", {NULL, POLYHEAD_FLOAT32, 1, NULL, NULL}};
  polyhead_training_context* context = NULL;
  polyhead_scratch* scratch = NULL;
  polyhead_gradients gradients;
  int i;
  bias.tensor.data = d_bias;
  bias.tensor.shape = bias_shape;
  fill(input, kNumbers, -1);
  memset(&gradients, 0, sizeof gradients);
  gradients.struct_size = sizeof gradients;
  gradients.d_out = &x;
  gradients.d_weights = &w;
  gradients.d_query = gradients.d_key = gradients.d_value = &d_x;
  gradients.parameters = &bias;
  gradients.num_parameters = 1;
  EXPECT_OK(polyhead_scratch_create(&config, NULL, 0, &scratch));
  EXPECT_OK(polyhead_training_context_create(&context));
  EXPECT_OK(polyhead_scratch_forward_training(scratch, NULL, &x, &x, &x, &y, &w, context));
  EXPECT_OK(polyhead_scratch_backward(scratch, context, &gradients));
  gradients.accumulate = 1;
  EXPECT_OK(polyhead_scratch_backward(scratch, context, &gradients));
  for (i = 0; i < kEmbed; ++i) { /* twice the sum of d_out over the rows */
    float sum = 0;
    int row;
    for (row = 0; row < kBatch * kLen; ++row) sum += input[row * kEmbed + i];
    EXPECT(d_bias[i] == 2 * sum);
  }
  EXPECT_OK(polyhead_scratch_repack(scratch));
  EXPECT_FAILS(INVALID, "parameters that have changed",
               polyhead_scratch_backward(scratch, context, &gradients));
  EXPECT_FAILS(INVALID, "is null", polyhead_scratch_backward(NULL, context, &gradients));
  EXPECT_FAILS(INVALID, "is null", polyhead_scratch_repack(NULL));
  EXPECT_FAILS(INVALID, "is null",
               polyhead_scratch_forward_training(NULL, NULL, &x, &x, &x, &y, &w, context));
  EXPECT_FAILS(INVALID, "context: is null",
               polyhead_scratch_forward_training(scratch, NULL, &x, &x, &x, &y, &w, NULL));
  polyhead_training_context_destroy(context);
  polyhead_scratch_destroy(scratch);
}

/* A step that would work, to be spoilt. */
static float g_input[kNumbers], g_output[kNumbers], g_gradient[kLargest];
static polyhead_tensor g_x, g_y, g_d_x;
static polyhead_parameter g_named[2];
static polyhead_gradients g_gradients;
static polyhead_training_context* g_context;
static polyhead_mha* g_mha;

static void make_step(void) {
  static const int64_t bias_shape[] = {kEmbed};
  size_t i;
  g_mha = make_mha(0);
  fill(g_input, kNumbers, -1);
  for (i = 0; i < kLargest; ++i) g_gradient[i] = -7;
  g_x = tensor(g_input, 3, kShape);
  g_y = tensor(g_output, 3, kShape);
  g_d_x = tensor(g_gradient, 3, kShape);
  g_named[0].name = g_named[1].name = "out_proj.bias";
  g_named[0].tensor = g_named[1].tensor = tensor(g_gradient, 1, bias_shape);
  memset(&g_gradients, 0, sizeof g_gradients);
  g_gradients.struct_size = sizeof g_gradients;
  g_gradients.d_out = &g_x;
  g_gradients.d_query = &g_d_x;
  g_gradients.parameters = g_named;
  EXPECT_OK(polyhead_training_context_create(&g_context));
}

static polyhead_status forward(const polyhead_mha* mha, const polyhead_tensor* query,
                               const polyhead_tensor* out, polyhead_training_context* context) {
  return polyhead_mha_forward_training(mha, NULL, query, &g_x, &g_x, out, NULL, context);
}

static polyhead_status backward(void) {
  return polyhead_mha_backward(g_mha, g_context, &g_gradients);
}

static void test_refused_arguments(void) {
  EXPECT_FAILS(INVALID, "context: holds no forward", backward());
  EXPECT_FAILS(INVALID, "context: is null", forward(g_mha, &g_x, &g_y, NULL));
  EXPECT_FAILS(INVALID, "mha: is null", forward(NULL, &g_x, &g_y, g_context));
  EXPECT_FAILS(INVALID, "query: is null", forward(g_mha, NULL, &g_y, g_context));
  EXPECT_FAILS(INVALID, "out: is null", forward(g_mha, &g_x, NULL, g_context));
  EXPECT_OK(forward(g_mha, &g_x, &g_y, g_context));
  EXPECT_FAILS(INVALID, "is null", polyhead_mha_backward(NULL, g_context, &g_gradients));
  EXPECT_FAILS(INVALID, "context: is null", polyhead_mha_backward(g_mha, NULL, &g_gradients));
  EXPECT_FAILS(INVALID, "gradients: is null", polyhead_mha_backward(g_mha, g_context, NULL));
  EXPECT_FAILS(INVALID, "is null", polyhead_mha_repack(NULL));
}

static void test_refused_parameters(void) {
  g_gradients.num_parameters = 2;
  EXPECT_FAILS(INVALID, "\"out_proj.bias\" is unknown or given twice", backward());
  g_named[1].name = "fc_out.bias";
  EXPECT_FAILS(INVALID, "\"fc_out.bias\" is unknown", backward());
  g_named[1].name = NULL;
  EXPECT_FAILS(INVALID, "name: is null", backward());
  g_gradients.num_parameters = SIZE_MAX;
  EXPECT_FAILS(INVALID, "num_parameters", backward());
  g_gradients.num_parameters = 1;
  g_gradients.parameters = NULL;
  EXPECT_FAILS(INVALID, "parameters: is null", backward());
  g_gradients.num_parameters = 0;
}

static void test_refused_fields(void) {
  static const int64_t huge[] = {INT64_MAX, 2, kEmbed};
  struct {
    polyhead_gradients known;
    char more[8];
  } larger;
  size_t i;
  g_gradients.accumulate = 2;
  EXPECT_FAILS(INVALID, "accumulate", backward());
  g_gradients.accumulate = 0;
  g_gradients.reserved = 1;
  EXPECT_FAILS(INVALID, "reserved", backward());
  g_gradients.reserved = 0;
  g_gradients.d_out = NULL;
  EXPECT_FAILS(INVALID, "d_out: is null", backward());
  g_gradients.d_out = &g_x;
  g_d_x.shape = huge;
  EXPECT_FAILS(INVALID, "d_query: shape[0] to shape[0], but for 0, make 2^63 bytes or more",
               backward());
  g_d_x.shape = kShape;
  g_d_x.dtype = POLYHEAD_BOOL;
  EXPECT_FAILS(INVALID, "d_query: dtype is bool", backward());
  g_d_x.dtype = POLYHEAD_FLOAT32;
  g_gradients.struct_size = 3;
  EXPECT_FAILS(INVALID, "struct_size", backward());
  g_gradients.struct_size = sizeof larger;
  memset(&larger, 0, sizeof larger);
  memcpy(&larger.known, &g_gradients, sizeof g_gradients);
  larger.more[7] = 1;
  EXPECT_FAILS(POLYHEAD_UNSUPPORTED, "does not know",
               polyhead_mha_backward(g_mha, g_context, &larger.known));
  for (i = 0; i < kLargest; ++i) EXPECT(g_gradient[i] == -7); /* nothing was written */
  larger.more[7] = 0;
  EXPECT_OK(polyhead_mha_backward(g_mha, g_context, &larger.known));
  EXPECT(g_gradient[0] != -7);
  polyhead_training_context_destroy(g_context);
  polyhead_mha_destroy(g_mha);
}

int main(void) {
  test_descent();
  test_dropout_state();
  test_dropout_of_the_context();
  test_scratch();
  make_step();
  test_refused_arguments();
  test_refused_parameters();
  test_refused_fields();
  return verdict("c_api_training_test");
}
