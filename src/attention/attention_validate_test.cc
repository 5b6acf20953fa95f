// Every wrong argument is refused with one line that says what was got and what is needed, before
// any output is touched.
#include <cmath>
#include <functional>
#include <initializer_list>
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

// Vectors of integers that live as long as the program.
ConstTensorView integers(std::initializer_list<int64_t> numbers) {
  static std::vector<std::vector<int64_t>> kept;
  kept.emplace_back(numbers);
  return {kept.back().data(), {static_cast<int64_t>(numbers.size())}};
}

TEST(AttentionValidation, Bands) {
  const BadCall bad[] = {
      {"attention_forward: masks[0].offset: got 1099511627777; must be between -1099511627776 and "
       "1099511627776",
       [](Arguments& a) { a.options.masks = {Mask::causal((int64_t{1} << 40) + 1)}; }},
      {"attention_forward: masks[0].left: got -2; must be between -1 and 1099511627776",
       [](Arguments& a) { a.options.masks = {Mask::window(-2, 0)}; }},
      {"attention_forward: masks[1].right: got -3; must be between -1 and 1099511627776",
       [](Arguments& a) { a.options.masks = {Mask::causal(), Mask::window(0, -3)}; }},
      {"attention_forward: masks[0]: not given; must be [2]",
       [](Arguments& a) { a.options.masks = {Mask::key_lengths({})}; }},
      {"attention_forward: masks[0]: shape is [3]; must be [2]",
       [](Arguments& a) { a.options.masks = {Mask::key_lengths(integers({1, 2, 3}))}; }},
      {"attention_forward: masks[0]: dtype is float32; must be int32 or int64",
       [](Arguments& a) { a.options.masks = {Mask::key_lengths(a.in({2}))}; }},
      {"attention_forward: masks[0][1]: got 6; must be between 0 and kv_len = 5",
       [](Arguments& a) { a.options.masks = {Mask::key_lengths(integers({5, 6}))}; }},
      {"attention_forward: masks[0][0]: got -1; must be between 0 and kv_len = 5",
       [](Arguments& a) { a.options.masks = {Mask::key_lengths(integers({-1, 6}))}; }},
  };
  for (const BadCall& call : bad) expect_refused(call);
}

TEST(AttentionValidation, ScoreModifiers) {
  const BadCall bad[] = {
      {"attention_forward: softcap: got -1; must be 0 or more",
       [](Arguments& a) { a.options.softcap = -1; }},
      {"attention_forward: softcap: got nan; must be 0 or more",
       [](Arguments& a) { a.options.softcap = std::nan(""); }},
      {"attention_forward: softcap: got 1e+39; must be a finite float32",
       [](Arguments& a) { a.options.softcap = 1e39; }},
      {"attention_forward: 1 / softcap: got 1.3938e+42; must be a finite float32",
       [](Arguments& a) { a.options.softcap = 0x1p-140; }},
      {"attention_forward: sinks: shape is [3, 1]; must be a 1-dimensional tensor",
       [](Arguments& a) { a.options.sinks = a.in({3, 1}); }},
      {"attention_forward: sinks: num_heads is 2 in [2]; must be 4",
       [](Arguments& a) { a.options.sinks = a.in({2}); }},
      {"attention_forward: sinks: dtype is float64; must be query's float32",
       [](Arguments& a) { a.options.sinks = a.in({4}, DType::kFloat64); }},
      {"attention_forward: masks[0]: not given; must be [4] or [2, 4]",
       [](Arguments& a) { a.options.masks = {Mask::alibi({})}; }},
      {"attention_forward: masks[0]: shape is [3, 4]; must be [4] or [2, 4]",
       [](Arguments& a) { a.options.masks = {Mask::alibi(a.in({3, 4}))}; }},
      {"attention_forward: masks[0]: dtype is int32; must be float32 or float64",
       [](Arguments& a) { a.options.masks = {Mask::alibi(a.in({4}, DType::kInt32))}; }},
      {"attention_forward: masks[0].query_ids: shape is [5]; must be [3] or [2, 3]",
       [](Arguments& a) {
         a.options.masks = {Mask::segments(integers({1, 2, 3, 4, 5}), integers({1, 2, 3, 4, 5}))};
       }},
      {"attention_forward: masks[0].key_ids: not given; must be [5] or [2, 5]",
       [](Arguments& a) { a.options.masks = {Mask::segments(integers({1, 2, 3}), {})}; }},
      {"attention_forward: masks[0].query_ids: dtype is float32; must be int32 or int64",
       [](Arguments& a) {
         a.options.masks = {Mask::segments(a.in({2, 3}), integers({1, 2, 3, 4, 5}))};
       }},
      {"attention_forward: masks[0].key_ids: dtype is int64; must be query_ids's int32",
       [](Arguments& a) {
         const ConstTensorView keys = integers({1, 2, 3, 4, 5});
         a.options.masks = {Mask::segments(a.in({3}, DType::kInt32), keys)};
       }},
  };
  for (const BadCall& call : bad) expect_refused(call);
}

Mask alibi(double slope, DType dtype, QueryOffset offset = CausalAlign::kTopLeft) {
  static std::vector<Tensor> kept;
  Tensor& slopes = kept.emplace_back(Tensor(dtype, {4}));
  write(slopes, {3}, slope);
  return Mask::alibi(slopes, offset);
}

// 3 queries and 5 keys: no slope may be more than FLT_MAX / 8, or as much less as an offset is far.
TEST(AttentionValidation, SlopesAndTheirProductsAreFinite) {
  const auto refused = [](const char* got, const Mask& mask, const char* distance = "8") {
    const std::string text = std::string("attention_forward: masks[0]: the slope of head 3 is ") +
                             got + "; must be a finite float32, also times the distance " +
                             distance;
    expect_refused({text.c_str(), [&](Arguments& a) { a.options.masks = {mask}; }});
  };
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (const DType dtype : {DType::kFloat32, DType::kFloat64}) {
    refused("inf", alibi(kInfinity, dtype));
    refused("-inf", alibi(-kInfinity, dtype));
    refused("nan", alibi(std::nan(""), dtype));
    refused("1e+38", alibi(1e38, dtype));
    refused("-1e+38", alibi(-1e38, dtype));
    refused("1e+37", alibi(1e37, dtype, 100), "108");
    refused("1e+37", alibi(1e37, dtype, -100), "108");
  }
  refused("1e+39", alibi(1e39, DType::kFloat64));
  Arguments right;
  right.options.masks = {alibi(4e37, DType::kFloat32)};
  EXPECT_NO_THROW(right.run());
}

// Of a batch of one, 3 queries and 5 keys.
BadCall bad_bounds(const char* message, const ConstTensorView& of_queries,
                   const ConstTensorView& of_keys) {
  return {message, [=](Arguments& a) {
            a.query = a.in({1, 4, 3, 8});
            a.key = a.in({1, 2, 5, 8});
            a.value = a.in({1, 2, 5, 6});
            a.outputs = {.out = a.to({1, 4, 3, 6})};
            a.options.cu_seqlens_q = of_queries;
            a.options.cu_seqlens_k = of_keys;
          }};
}

TEST(AttentionValidation, PackedBatches) {
  const ConstTensorView queries = integers({0, 1, 3}), keys = integers({0, 4, 5});
  const BadCall bad[] = {
      bad_bounds("attention_forward: cu_seqlens_k: not given; must be [3]", queries, {}),
      bad_bounds("attention_forward: cu_seqlens_q: not given; must be [N + 1]", {}, keys),
      bad_bounds("attention_forward: cu_seqlens_k: shape is [2]; must be [3]", queries,
                 integers({0, 5})),
      bad_bounds("attention_forward: cu_seqlens_q: shape is [0]; must be [N + 1]", integers({}),
                 integers({})),
      bad_bounds("attention_forward: cu_seqlens_q: [0] is 1; must be 0", integers({1, 1, 3}), keys),
      bad_bounds("attention_forward: cu_seqlens_k: [2] is 3; must be at least 4, as before it",
                 queries, integers({0, 4, 3})),
      bad_bounds("attention_forward: cu_seqlens_k: the last is 4; must be kv_len = 5", queries,
                 integers({0, 4, 4})),
      bad_bounds("attention_forward: cu_seqlens_q: the last is 4; must be q_len = 3",
                 integers({0, 1, 4}), keys),
  };
  for (const BadCall& call : bad) expect_refused(call);
  BadCall good = bad_bounds("attention_forward: query: batch is 2, with cu_seqlens_q; must be 1",
                            queries, keys);
  const auto spoil = [&](const char* message, const auto& change) {
    expect_refused({message, [&](Arguments& a) {
                      good.spoil(a);
                      change(a);
                    }});
  };
  spoil(good.message, [](Arguments& a) {
    a.query = a.in({2, 4, 3, 8});
    a.key = a.in({2, 2, 5, 8});
    a.value = a.in({2, 2, 5, 6});
  });
  spoil("attention_forward: weights: wanted, with cu_seqlens_q; must be WeightsMode::kNone",
        [](Arguments& a) { a.options.weights = WeightsMode::kAverage; });
  spoil("attention_forward: masks[0][0]: got 5; must be between 0 and kv_len = 4",
        [](Arguments& a) { a.options.masks = {Mask::key_lengths(integers({5, 0}))}; });
}

// Nothing that is read may be written over.
TEST(AttentionValidation, OutputsOverInputs) {
  const auto spoilers = {
      +[](Arguments& a) { a.query = a.to({2, 4, 3, 8}); },
      +[](Arguments& a) { a.key = a.to({2, 2, 5, 8}); },
      +[](Arguments& a) { a.value = a.to({2, 2, 5, 6}); },
      +[](Arguments& a) { a.options.sinks = a.to({4}); },
      +[](Arguments& a) { a.options.masks = {Mask::additive(a.to({3, 5}))}; },
      +[](Arguments& a) {
        a.options.masks = {Mask::boolean(a.to({3, 5}, DType::kBool), MaskSense::kIncluded)};
      },
      +[](Arguments& a) { a.options.masks = {Mask::alibi(a.to({4}))}; },
      +[](Arguments& a) {
        a.options.masks = {Mask::segments(a.in({3}, DType::kInt32), a.to({5}, DType::kInt32))};
      },
      +[](Arguments& a) {
        a.options.masks = {Mask::segments(a.to({3}, DType::kInt32), a.in({5}, DType::kInt32))};
      }};
  for (const auto& spoil : spoilers) {
    expect_refused(
        {"attention_forward: out: overlaps another tensor of the call; must be memory of its own",
         spoil});
  }
}

// The bounds of one sequence, where its first row goes.
TEST(AttentionValidation, OutputsOverTheBounds) {
  for (const bool of_queries : {true, false}) {
    int64_t memory[4 * 3 * 6] = {0, of_queries ? 3 : 5};
    const int64_t queries[] = {0, 3}, keys[] = {0, 5}, shape[] = {1, 4, 3, 6};
    Arguments a;
    a.query = a.in({1, 4, 3, 8});
    a.key = a.in({1, 2, 5, 8});
    a.value = a.in({1, 2, 5, 6});
    a.options.cu_seqlens_q = {of_queries ? memory : queries, {2}};
    a.options.cu_seqlens_k = {of_queries ? keys : memory, {2}};
    a.outputs = {.out = TensorView(memory, DType::kFloat32, shape)};
    EXPECT_THROW(a.run(), InvalidArgument) << of_queries;
    EXPECT_EQ(memory[1], of_queries ? 3 : 5);
  }
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
