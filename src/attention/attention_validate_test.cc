// Every wrong argument is refused with one line that says what was got and what is needed, before
// any output is touched.
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <polyhead/attention.h>
#include <polyhead/error.h>
#include "attention/attention_call.h"
#include "testing/elements.h"

namespace polyhead::oracle {
namespace {

// B 2, H 4 of 2, L 3, S 5, D 8, Dv 6; all arguments right. The tests break one.
struct Arguments {
  Tensor memory{DType::kFloat32, {2 * 4 * 8 * 8}};
  Tensor output{DType::kFloat32, {2 * 4 * 8 * 8}};
  ConstTensorView query = in({2, 4, 3, 8}), key = in({2, 2, 5, 8}), value = in({2, 2, 5, 6});
  AttentionOptions options;
  AttentionOutputs outputs{.out = to({2, 4, 3, 6}),
                           .lse = TensorView(output.data_as<float>() + 256, {2, 4, 3}),
                           .weights = {}};

  Arguments() { fill(output, 77); }
  ConstTensorView in(std::initializer_list<int64_t> shape, DType dtype = DType::kFloat32) const {
    return {memory.data(), dtype, Shape(shape.begin(), shape.size())};
  }
  TensorView to(std::initializer_list<int64_t> shape, DType dtype = DType::kFloat32) {
    return {output.data(), dtype, Shape(shape.begin(), shape.size())};
  }
  void boolean(std::initializer_list<int64_t> shape, DType dtype = DType::kBool) {
    options.masks = {Mask::boolean(in(shape, dtype), MaskSense::kExcluded)};
  }
  void additive(std::initializer_list<int64_t> shape, DType dtype = DType::kFloat32) {
    options.masks = {Mask::additive(in(shape, dtype))};
  }
  void run() const { attention_forward(query, key, value, options, outputs); }
  bool output_untouched() const {
    bool untouched = true;
    for_each_index(output.shape(), [&](const Index& at) { untouched &= read(output, at) == 77; });
    return untouched;
  }
};

struct BadCall {
  const char* message;  // the whole of it
  std::function<void(Arguments&)> spoil;
};

void expect_refused(const BadCall& bad) {
  Arguments arguments;
  bad.spoil(arguments);
  try {
    arguments.run();
    ADD_FAILURE() << "accepted; expected: " << bad.message;
  } catch (const InvalidArgument& error) {
    EXPECT_STREQ(error.what(), bad.message);
  }
  EXPECT_TRUE(arguments.output_untouched()) << bad.message;
}

TEST(AttentionValidation, TheArgumentsTheTestsBreakAreRight) {
  Arguments arguments;
  EXPECT_NO_THROW(arguments.run());
  EXPECT_FALSE(arguments.output_untouched());
}

TEST(AttentionValidation, Inputs) {
  const BadCall bad[] = {
      {"attention_forward: query: not given; must be a 4-dimensional tensor",
       [](Arguments& a) { a.query = {}; }},
      {"attention_forward: query: shape is [4, 3, 8]; must be a 4-dimensional tensor",
       [](Arguments& a) { a.query = a.in({4, 3, 8}); }},
      {"attention_forward: query: dtype is int32; must be float32 or float64",
       [](Arguments& a) { a.query = a.in({2, 4, 3, 8}, DType::kInt32); }},
      {"attention_forward: query: dtype is bfloat16; must be float32 or float64",
       [](Arguments& a) { a.query = a.in({2, 4, 3, 8}, DType::kBFloat16); }},
      {"attention_forward: key: not given; must be a 4-dimensional tensor",
       [](Arguments& a) { a.key = {}; }},
      {"attention_forward: key: shape is [2, 2, 5, 8, 1]; must be a 4-dimensional tensor",
       [](Arguments& a) { a.key = a.in({2, 2, 5, 8, 1}); }},
      {"attention_forward: key: dtype is float16; must be query's float32",
       [](Arguments& a) { a.key = a.in({2, 2, 5, 8}, DType::kFloat16); }},
      {"attention_forward: key: batch is 1 in [1, 2, 5, 8]; must be 2",
       [](Arguments& a) { a.key = a.in({1, 2, 5, 8}); }},
      {"attention_forward: key: head_dim is 6 in [2, 2, 5, 6]; must be 8",
       [](Arguments& a) { a.key = a.in({2, 2, 5, 6}); }},
      {"attention_forward: value: not given; must be a 4-dimensional tensor",
       [](Arguments& a) { a.value = {}; }},
      {"attention_forward: value: batch is 3 in [3, 2, 5, 6]; must be 2",
       [](Arguments& a) { a.value = a.in({3, 2, 5, 6}); }},
      {"attention_forward: value: num_kv_heads is 4 in [2, 4, 5, 6]; must be 2",
       [](Arguments& a) { a.value = a.in({2, 4, 5, 6}); }},
      {"attention_forward: value: kv_len is 4 in [2, 2, 4, 6]; must be 5",
       [](Arguments& a) { a.value = a.in({2, 2, 4, 6}); }},
      {"attention_forward: key: num_kv_heads is 3; must be a divisor of 4 heads",
       [](Arguments& a) {
         a.key = a.in({2, 3, 5, 8});
         a.value = a.in({2, 3, 5, 6});
       }},
      {"attention_forward: key: num_kv_heads is 0; must be a divisor of 4 heads",
       [](Arguments& a) {
         a.key = a.in({2, 0, 5, 8});
         a.value = a.in({2, 0, 5, 6});
       }},
  };
  for (const BadCall& call : bad) expect_refused(call);
}

TEST(AttentionValidation, Outputs) {
  const BadCall bad[] = {
      {"attention_forward: out: not given; must be a 4-dimensional tensor",
       [](Arguments& a) { a.outputs.out = {}; }},
      {"attention_forward: out: dtype is float64; must be query's float32",
       [](Arguments& a) { a.outputs.out = a.to({2, 4, 3, 6}, DType::kFloat64); }},
      {"attention_forward: out: batch is 1 in [1, 4, 3, 6]; must be 2",
       [](Arguments& a) { a.outputs.out = a.to({1, 4, 3, 6}); }},
      {"attention_forward: out: num_heads is 2 in [2, 2, 3, 6]; must be 4",
       [](Arguments& a) { a.outputs.out = a.to({2, 2, 3, 6}); }},
      {"attention_forward: out: q_len is 5 in [2, 4, 5, 6]; must be 3",
       [](Arguments& a) { a.outputs.out = a.to({2, 4, 5, 6}); }},
      {"attention_forward: out: v_head_dim is 8 in [2, 4, 3, 8]; must be 6",
       [](Arguments& a) { a.outputs.out = a.to({2, 4, 3, 8}); }},
      {"attention_forward: lse: shape is [2, 4, 3, 1]; must be a 3-dimensional tensor",
       [](Arguments& a) { a.outputs.lse = a.to({2, 4, 3, 1}); }},
      {"attention_forward: lse: q_len is 4 in [2, 4, 4]; must be 3",
       [](Arguments& a) { a.outputs.lse = a.to({2, 4, 4}); }},
      {"attention_forward: weights: given, with WeightsMode::kNone; must be undefined",
       [](Arguments& a) { a.outputs.weights = a.to({2, 3, 5}); }},
      {"attention_forward: weights: not given; must be a 3-dimensional tensor",
       [](Arguments& a) { a.options.weights = WeightsMode::kAverage; }},
      {"attention_forward: weights: shape is [2, 3, 5]; must be a 4-dimensional tensor",
       [](Arguments& a) {
         a.options.weights = WeightsMode::kPerHead;
         a.outputs.weights = a.to({2, 3, 5});
       }},
      {"attention_forward: weights: kv_len is 3 in [2, 3, 3]; must be 5",
       [](Arguments& a) {
         a.options.weights = WeightsMode::kAverage;
         a.outputs.weights = a.to({2, 3, 3});
       }},
      {"attention_forward: weights: num_heads is 2 in [2, 2, 3, 5]; must be 4",
       [](Arguments& a) {
         a.options.weights = WeightsMode::kPerHead;
         a.outputs.weights = a.to({2, 2, 3, 5});
       }},
  };
  for (const BadCall& call : bad) expect_refused(call);
}

TEST(AttentionValidation, MasksAndOptions) {
  const BadCall bad[] = {
      {"attention_forward: scale: got nan; must be a finite float32",
       [](Arguments& a) { a.options.scale = std::nan(""); }},
      {"attention_forward: scale: got -inf; must be a finite float32",
       [](Arguments& a) { a.options.scale = -std::numeric_limits<double>::infinity(); }},
      {"attention_forward: scale: got 1e+39; must be a finite float32",
       [](Arguments& a) { a.options.scale = 1e39; }},
      {"attention_forward: dropout_p: got 1.5; must be between 0 and 1",
       [](Arguments& a) { a.options.dropout_p = 1.5; }},
      {"attention_forward: dropout_p: got -0.1; must be between 0 and 1",
       [](Arguments& a) { a.options.dropout_p = -0.1; }},
      {"attention_forward: dropout_p: got nan; must be between 0 and 1",
       [](Arguments& a) { a.options.dropout_p = std::nan(""); }},
      {"attention_forward: masks[0]: not given; must be [L, S], [H, L, S] or [B, H, L, S], each "
       "size also 1",
       [](Arguments& a) { a.options.masks = {Mask::additive({})}; }},
      {"attention_forward: masks[0]: shape is [5]; must be [L, S], [H, L, S] or [B, H, L, S], each "
       "size also 1",
       [](Arguments& a) { a.boolean({5}); }},
      {"attention_forward: masks[0]: shape is [1, 1, 1, 3, 5]; must be [L, S], [H, L, S] or [B, H, "
       "L, S], each size also 1",
       [](Arguments& a) { a.additive({1, 1, 1, 3, 5}); }},
      {"attention_forward: masks[0]: dtype is float32; must be bool",
       [](Arguments& a) { a.boolean({3, 5}, DType::kFloat32); }},
      {"attention_forward: masks[0]: dtype is float16; must be float32, float64, bool, int32 or "
       "int64",
       [](Arguments& a) { a.additive({3, 5}, DType::kFloat16); }},
      {"attention_forward: masks[0]: size 0 is 5 in [5, 3]; must be 1 or q_len = 3",
       [](Arguments& a) { a.boolean({5, 3}); }},
      {"attention_forward: masks[0]: size 1 is 3 in [3, 3]; must be 1 or kv_len = 5",
       [](Arguments& a) { a.additive({3, 3}); }},
      {"attention_forward: masks[0]: size 0 is 2 in [2, 3, 5]; must be 1 or num_heads = 4",
       [](Arguments& a) { a.boolean({2, 3, 5}); }},
      {"attention_forward: masks[0]: size 0 is 8 in [8, 1, 3, 5]; must be 1 or batch = 2",
       [](Arguments& a) { a.boolean({8, 1, 3, 5}); }},
      {"attention_forward: masks[1]: size 1 is 0 in [3, 0]; must be 1 or kv_len = 5",
       [](Arguments& a) { a.options.masks = {Mask::causal(), Mask::additive(a.in({3, 0}))}; }},
      {"attention_forward: out: overlaps another tensor of the call; must be memory of its own",
       [](Arguments& a) { a.query = a.to({2, 4, 3, 8}); }},
      {"attention_forward: plan: got \"fastest\"; must be one that `polyhead info` lists and that "
       "supports this call",
       [](Arguments& a) { a.options.plan = "fastest"; }},
  };
  for (const BadCall& call : bad) expect_refused(call);
}

TEST(AttentionValidation, ExtraColumns) {
  Arguments a;
  const auto refused = [&](const ConstTensorView& extra_key, const ConstTensorView& extra_value,
                           const std::string& expected) {
    AttentionCall call{.query = a.query, .key = a.key, .value = a.value};
    call.extra_key = extra_key;
    call.extra_value = extra_value;
    call.outputs = a.outputs;
    try {
      validate(call, "forward");
      ADD_FAILURE() << "accepted; expected: " << expected;
    } catch (const InvalidArgument& error) {
      EXPECT_EQ(error.what(), expected);
    }
  };
  const ConstTensorView key = a.in({2, 1, 8}), value = a.in({2, 1, 6});
  refused(key, {}, "forward: extra_value: not given; must be a 3-dimensional tensor");
  refused({}, value, "forward: extra_key: not given; must be a 3-dimensional tensor");
  refused(a.in({4, 1, 8}), value, "forward: extra_key: num_kv_heads is 4 in [4, 1, 8]; must be 2");
  refused(a.in({2, 1, 6}), value, "forward: extra_key: head_dim is 6 in [2, 1, 6]; must be 8");
  refused(key, a.in({2, 2, 6}), "forward: extra_value: columns is 2 in [2, 2, 6]; must be 1");
  refused(key, a.in({2, 1, 8}), "forward: extra_value: v_head_dim is 8 in [2, 1, 8]; must be 6");
  refused(a.in({2, 9, 8}), a.in({2, 9, 6}),
          "forward: extra_key: more than 8 columns; must be at most 8");
}

}  // namespace
}  // namespace polyhead::oracle
