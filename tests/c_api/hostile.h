/* What hostile calls are made of: arguments that are all right, each spoilt in each way, and the
 * demand that the call is refused and its outputs stay as they were. */
#ifndef POLYHEAD_TESTS_C_API_HOSTILE_H
#define POLYHEAD_TESTS_C_API_HOSTILE_H

#include <limits.h>
#include <stdint.h>

#include "expect.h"

#define INVALID POLYHEAD_INVALID_ARGUMENT

enum { kBatch = 2, kHeads = 2, kLen = 3, kKeys = 5, kEmbed = 4, kRoom = 256, kUntouched = 0x5a };
enum { kTensors = 12 };

/* The arguments of one call, all right to begin with. The tests spoil one thing at a time. */
typedef struct arguments {
  polyhead_tensor tensors[kTensors];
  int64_t shapes[kTensors][10];
  int64_t strides[kTensors][10];
  int missing;  /* which tensor is passed as null, or -1 */
  int any_rank; /* which tensor may have no dimension, or -1 */
} arguments;

static float g_inputs[kRoom];
static float g_outputs[4][kRoom];

/* Called with spoilt arguments. */
typedef polyhead_status (*forward_call)(arguments*);

static const polyhead_tensor* at(const arguments* from, int i) {
  return from->missing == i ? NULL : &from->tensors[i];
}

static void place(arguments* to, int i, void* data, int32_t dtype, int32_t rank,
                  const int64_t* sizes) {
  int32_t dim;
  polyhead_tensor* tensor = &to->tensors[i];
  tensor->data = data;
  tensor->dtype = dtype;
  tensor->rank = rank;
  tensor->shape = to->shapes[i];
  tensor->strides = NULL;
  for (dim = 0; dim < 10; ++dim) {
    to->shapes[i][dim] = dim < rank ? sizes[dim] : 1;
    to->strides[i][dim] = 1;
  }
}

static void expect_untouched(const char* what, int tensor) {
  const unsigned char* bytes = (const unsigned char*)g_outputs;
  size_t i;
  for (i = 0; i < sizeof g_outputs; ++i) {
    if (bytes[i] == kUntouched) continue;
    fprintf(stderr, "tensor %d, %s: an output was touched\n", tensor, what);
    EXPECT(0);
    return;
  }
}

static void expect_refused(forward_call call, arguments* a, const char* what, int tensor) {
  const polyhead_status status = call(a);
  ++g_checks;
  if (status != INVALID || polyhead_last_error()[0] == '\0') {
    ++g_failures;
    fprintf(stderr, "tensor %d, %s: got %s: %s\n", tensor, what, polyhead_status_name(status),
            polyhead_last_error());
  }
  expect_untouched(what, tensor);
}

/* Each size of the tensor, wrong in each way. */
static void spoil_sizes(forward_call call, const arguments* right, int i) {
  static const int64_t wrong[] = {-1, INT64_MIN, INT64_MAX, INT64_MAX / 2, 1 << 30};
  int32_t dim;
  size_t w;
  for (dim = 0; dim < right->tensors[i].rank; ++dim) {
    arguments a = *right;
    const int64_t size = a.shapes[i][dim];
    a.tensors[i].shape = a.shapes[i];
    for (w = 0; w < sizeof wrong / sizeof wrong[0]; ++w) {
      a.shapes[i][dim] = wrong[w];
      expect_refused(call, &a, "a size far off", i);
    }
    a.shapes[i][dim] = size + 1;
    expect_refused(call, &a, "a size too large by one", i);
    a.shapes[i][dim] = 0;
    expect_refused(call, &a, "a size of 0", i);
    a.shapes[i][dim] = size;
    a.tensors[i].strides = a.strides[i];
    a.strides[i][dim] = size > 1 ? INT64_MAX : 1;
    if (size > 1) expect_refused(call, &a, "the largest stride", i);
    a.strides[i][dim] = INT64_MIN;
    expect_refused(call, &a, "the most negative stride", i);
    a.strides[i][dim] = 1;
  }
}

static void spoil_tensor(forward_call call, const arguments* right, int i) {
  static const int32_t ranks[] = {-1, 0, 1, 5, 8, 9, 1000000, INT_MAX, INT_MIN};
  static const int32_t dtypes[] = {-1, POLYHEAD_FLOAT16, POLYHEAD_BFLOAT16, 7, INT_MAX, INT_MIN};
  arguments a = *right;
  size_t w;
  for (w = 0; w < sizeof ranks / sizeof ranks[0]; ++w) {
    a.tensors[i].shape = a.shapes[i];
    a.tensors[i].rank = ranks[w];
    if (ranks[w] == 0 && i == a.any_rank) continue; /* one number for all */
    expect_refused(call, &a, "a wrong rank", i);
  }
  a.tensors[i].rank = right->tensors[i].rank;
  for (w = 0; w < sizeof dtypes / sizeof dtypes[0]; ++w) {
    a.tensors[i].dtype = dtypes[w];
    expect_refused(call, &a, "a wrong dtype", i);
  }
  a.tensors[i].dtype = right->tensors[i].dtype;
  a.tensors[i].data = NULL;
  expect_refused(call, &a, "null data", i);
  if (a.tensors[i].dtype == POLYHEAD_FLOAT32) {
    a.tensors[i].data = (char*)right->tensors[i].data + 1;
    expect_refused(call, &a, "misaligned data", i);
  }
  a.tensors[i].data = right->tensors[i].data;
  a.tensors[i].shape = NULL;
  expect_refused(call, &a, "a null shape", i);
  spoil_sizes(call, right, i);
}

/* The first `required` tensors must be there; the rest, up to `count`, may be left out. */
static void test_forward(forward_call call, arguments (*right)(void), int required, int count) {
  arguments a = right();
  int i, j;
  for (i = 0; i < count; ++i) {
    for (j = 0; j < kTensors; ++j) a.tensors[j].shape = a.shapes[j];
    memset(g_outputs, kUntouched, sizeof g_outputs);
    spoil_tensor(call, &a, i);
    a.missing = i;
    if (i < required) expect_refused(call, &a, "not given", i);
    a.missing = -1;
  }
  for (j = 0; j < kTensors; ++j) a.tensors[j].shape = a.shapes[j];
  EXPECT_OK(call(&a)); /* it was nothing but what was spoilt */
}

static const size_t kWrongSizes[] = {0, 1, 7, 9, 12, 4104, SIZE_MAX, SIZE_MAX - 7};

#endif
