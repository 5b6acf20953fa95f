/* The layer of trained_weights.cc, from C: load, forward, weights, and an error. */
#include <math.h>
#include <polyhead/c_api.h>
#include <stdio.h>

enum { kLength = 5, kEmbed = 64, kHeads = 8 };

/* Each word must look at those before it and at itself, with weights that sum to 1. */
static int are_causal_weights(const float* weights) {
  for (int row = 0; row < kHeads * kLength; ++row) {
    float sum = 0;
    for (int j = 0; j < kLength; ++j) {
      const float weight = weights[row * kLength + j];
      if (j > row % kLength && weight != 0) return 0;
      sum += weight;
    }
    if (fabsf(sum - 1) > 1e-5F) return 0;
  }
  return 1;
}

int main(void) {
  static float x[kLength * kEmbed], out[kLength * kEmbed], weights[kHeads * kLength * kLength];
  for (int i = 0; i < kLength * kEmbed; ++i) x[i] = sinf(0.1F * (float)(i * i % 97));

  polyhead_load_options load = {.struct_size = sizeof load, .layout = POLYHEAD_BATCH_FIRST};
  polyhead_mha* attention = NULL;
  if (polyhead_mha_load("no_such_file.safetensors", &load, &attention) != POLYHEAD_FILE) return 1;
  printf("refused: %s\n", polyhead_last_error());
  if (polyhead_mha_load("layer.safetensors", &load, &attention) != POLYHEAD_OK) {
    fprintf(stderr, "%s\n", polyhead_last_error());
    return 1;
  }
  const int64_t shape[] = {1, kLength, kEmbed}, per_head[] = {1, kHeads, kLength, kLength};
  const polyhead_tensor input = {x, POLYHEAD_FLOAT32, 3, shape, NULL};
  const polyhead_tensor output = {out, POLYHEAD_FLOAT32, 3, shape, NULL};
  const polyhead_tensor seen = {weights, POLYHEAD_FLOAT32, 4, per_head, NULL};
  const polyhead_forward_options options = {
      .struct_size = sizeof options, .is_causal = 1, .need_weights = POLYHEAD_WEIGHTS_PER_HEAD};
  const polyhead_status status =
      polyhead_mha_forward(attention, &options, &input, &input, &input, &output, &seen);
  polyhead_mha_destroy(attention);
  if (status != POLYHEAD_OK) fprintf(stderr, "%s\n", polyhead_last_error());
  printf("polyhead %s from C: out[0] = %.4f\n", polyhead_version(), (double)out[0]);
  return status == POLYHEAD_OK && out[0] != 0 && are_causal_weights(weights) ? 0 : 1;
}
