/* The op's backward with arguments that a mistaken or hostile caller may pass. Compiled as C99. */
#include "hostile.h"

/* query, key, value, out, lse, d_out, d_weights, additive mask, d_query, d_key, d_value, d_mask */
static arguments backward_arguments(void) {
  const int64_t q[] = {kBatch, kHeads, kLen, kEmbed}, k[] = {kBatch, kHeads, kKeys, kEmbed};
  const int64_t w[] = {kBatch, kHeads, kLen, kKeys}, mask[] = {kLen, kKeys};
  arguments a;
  int i;
  a.missing = a.any_rank = -1;
  for (i = 0; i < 11; ++i) {
    const int is_key = i == 1 || i == 2 || i == 9 || i == 10;
    place(&a, i, i < 8 ? g_inputs : g_outputs[i - 8], POLYHEAD_FLOAT32, 4, is_key ? k : q);
  }
  place(&a, 4, g_inputs, POLYHEAD_FLOAT32, 3, q);
  place(&a, 6, g_inputs, POLYHEAD_FLOAT32, 4, w);
  place(&a, 7, g_inputs, POLYHEAD_FLOAT32, 2, mask);
  place(&a, 11, g_outputs[3], POLYHEAD_FLOAT32, 2, mask);
  return a;
}

static polyhead_status call_backward(arguments* a) {
  const polyhead_tensor* d_mask = at(a, 11);
  polyhead_mask mask;
  polyhead_attention_options options;
  polyhead_attention_backward_inputs inputs;
  polyhead_attention_gradients gradients;
  memset(&mask, 0, sizeof mask);
  memset(&options, 0, sizeof options);
  memset(&gradients, 0, sizeof gradients);
  mask.struct_size = sizeof mask;
  mask.kind = POLYHEAD_MASK_ADDITIVE;
  mask.tensor = at(a, 7);
  options.struct_size = sizeof options;
  options.masks = &mask;
  options.num_masks = 1;
  options.weights = POLYHEAD_WEIGHTS_PER_HEAD;
  inputs.struct_size = sizeof inputs;
  inputs.out = at(a, 3);
  inputs.lse = at(a, 4);
  inputs.d_out = at(a, 5);
  inputs.d_weights = at(a, 6);
  inputs.lse_rest = at(a, 4);
  gradients.struct_size = sizeof gradients;
  gradients.d_query = at(a, 8);
  gradients.d_key = at(a, 9);
  gradients.d_value = at(a, 10);
  gradients.d_masks = &d_mask;
  return polyhead_attention_backward(&options, at(a, 0), at(a, 1), at(a, 2), &inputs, &gradients);
}

static void test_backward_structs(void) {
  arguments a = backward_arguments();
  polyhead_attention_backward_inputs inputs;
  polyhead_attention_gradients gradients;
  size_t i;
  for (i = 0; i < kTensors; ++i) a.tensors[i].shape = a.shapes[i];
  memset(g_outputs, kUntouched, sizeof g_outputs);
  memset(&gradients, 0, sizeof gradients);
  inputs.struct_size = sizeof inputs;
  inputs.out = at(&a, 3);
  inputs.lse = at(&a, 4);
  inputs.d_out = at(&a, 5);
  inputs.d_weights = inputs.lse_rest = NULL;
  gradients.struct_size = sizeof gradients;
  gradients.d_key = at(&a, 9);
#define BACKWARD(inputs, gradients) \
  polyhead_attention_backward(NULL, at(&a, 0), at(&a, 1), at(&a, 2), inputs, gradients)
  EXPECT_FAILS(INVALID, "inputs: is null", BACKWARD(NULL, &gradients));
  EXPECT_FAILS(INVALID, "gradients: is null", BACKWARD(&inputs, NULL));
  for (i = 0; i < sizeof kWrongSizes / sizeof kWrongSizes[0]; ++i) {
    inputs.struct_size = kWrongSizes[i];
    EXPECT_FAILS(INVALID, "struct_size", BACKWARD(&inputs, &gradients));
    inputs.struct_size = sizeof inputs;
    gradients.struct_size = kWrongSizes[i];
    EXPECT_FAILS(INVALID, "struct_size", BACKWARD(&inputs, &gradients));
    gradients.struct_size = sizeof gradients;
  }
  EXPECT_FAILS(INVALID, "keep", polyhead_attention_dropout_mask(NULL, NULL));
  EXPECT_FAILS(INVALID, "keep", polyhead_attention_dropout_mask(NULL, at(&a, 8)));
  expect_untouched("backward", -1);
  EXPECT_OK(BACKWARD(&inputs, &gradients));
#undef BACKWARD
}

int main(void) {
  test_forward(call_backward, backward_arguments, 6, 12);
  test_backward_structs();
  return verdict("c_api_backward_test");
}
