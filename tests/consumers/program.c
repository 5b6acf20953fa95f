/* What a user of the C API writes. */
#include <polyhead/c_api.h>
#include <stdio.h>

int main(void) {
  static float x[2 * 3 * 16], out[2 * 3 * 16];
  const int64_t shape[] = {2, 3, 16};
  const polyhead_tensor input = {x, POLYHEAD_FLOAT32, 3, shape, NULL};
  const polyhead_tensor result = {out, POLYHEAD_FLOAT32, 3, shape, NULL};
  const polyhead_scratch_config config = {
      .struct_size = sizeof config, .embed_size = 16, .num_heads = 4};
  polyhead_scratch* module = NULL;
  polyhead_status status = polyhead_scratch_create(&config, NULL, 0, &module);
  if (status == POLYHEAD_OK) {
    status = polyhead_scratch_forward(module, NULL, &input, &input, &input, &result, NULL);
  }
  if (status != POLYHEAD_OK) fprintf(stderr, "%s\n", polyhead_last_error());
  polyhead_scratch_destroy(module);
  printf("polyhead %s from C, %s\n", polyhead_version(), polyhead_isa());
  return status == POLYHEAD_OK && polyhead_scratch_create(NULL, NULL, 0, &module) != POLYHEAD_OK
             ? 0
             : 1;
}
