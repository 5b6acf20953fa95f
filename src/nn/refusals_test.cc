// What is refused, and the one line that says so; nothing is written then.
#include <limits>

#include "nn/nn_test_tools.h"

namespace polyhead::nn {
namespace {

template <class Call>
std::string refused(const Call& call) {
  return refusal<InvalidArgument>(call);
}

TEST(Refusals, Layers) {
  Random random{.seed = 1};
  Linear linear({.in_features = 3, .out_features = 2}, random);
  LayerNorm norm(3);
  Tensor x(DType::kFloat32, {4, 3}), wide(DType::kFloat32, {4, 5}), twice(DType::kFloat64, {4, 3});
  EXPECT_EQ(refused([&] { linear.forward(wide); }),
            "PackedLinear::run: x: has 5 features; must be 3 wide");
  EXPECT_EQ(refused([&] { Linear({.in_features = 0, .out_features = 2}, random); }),
            "Linear: config: in_features is 0, out_features 2; must be at least 1");
  EXPECT_EQ(refused([&] { norm.forward(wide); }),
            "LayerNorm::forward: x: shape is [4, 5]; must be [..., 3]");
  EXPECT_EQ(refused([&] { norm.forward(twice); }),
            "LayerNorm::forward: x: dtype is float64; must be float32");
  EXPECT_EQ(refused([&] { norm.forward({}); }),
            "LayerNorm::forward: x: not given; must be a tensor");
  EXPECT_EQ(refused([&] { norm.forward(x.view().transposed(0, 1)); }),
            "LayerNorm::forward: x: strides leave gaps or another order; must be row-major without "
            "gaps");
  EXPECT_EQ(refused([&] { norm.backward(x, wide, {}); }),
            "LayerNorm::backward: d_y: shape is [4, 5]; must be [4, 3]");
  EXPECT_EQ(refused([&] { LayerNorm(0); }), "LayerNorm: width: 0; must be at least 1");
  EXPECT_EQ(refused([&] { LayerNorm(x.view().select(0, 0), wide.view().select(0, 0)); }),
            "LayerNorm: bias: shape is [5]; must be [3]");
  EXPECT_EQ(refused([&] { LayerNorm(3, -1); }), "LayerNorm: epsilon: -1; must be 0 or more");
}

TEST(Refusals, LayersThatCannotBeMade) {
  Random random{.seed = 1};
  const DType ints = DType::kInt32;
  const std::string need = "dtype: int32; must be float32 or float64";
  EXPECT_EQ(refused([&] { Linear({.in_features = 3, .out_features = 2, .dtype = ints}, random); }),
            "Linear: " + need);
  EXPECT_EQ(refused([&] { LayerNorm(3, 0, ints); }), "LayerNorm: " + need);
  EXPECT_EQ(refused([&] { Embedding(3, 2, random, ints); }), "Embedding: " + need);
  EXPECT_EQ(
      refused([&] { Linear(Tensor(DType::kFloat32, {0, 4}), {}); }),
      "Linear: weight: shape is [0, 4]; must be [out_features, in_features], at least 1 each");
}

TEST(Refusals, OutputsOverInputs) {
  Random random{.seed = 1};
  Linear linear({.in_features = 3, .out_features = 3}, random);
  LayerNorm norm(3);
  Tensor all = random_tensor(DType::kFloat32, {6, 3}, 1);
  const Tensor before = all;
  const TensorView x = all.view().narrow(0, 0, 4), shifted = all.view().narrow(0, 1, 4);
  const std::string in_part =
      ": overlaps an input in part; must be the input itself or memory of its own";
  EXPECT_EQ(refused([&] { linear.forward_into(x, x); }),
            "PackedLinear::run: out: overlaps x; must be memory of its own");
  EXPECT_EQ(refused([&] { linear.backward(before.view().narrow(0, 0, 4), x, shifted); }),
            "Linear::backward: d_x: overlaps d_y; must be memory of its own");
  EXPECT_EQ(refused([&] { norm.forward_into(x, shifted); }), "LayerNorm::forward: y" + in_part);
  const Tensor d_y = random_tensor(DType::kFloat32, {4, 3}, 2);
  EXPECT_EQ(refused([&] { norm.backward(x, d_y, shifted); }), "LayerNorm::backward: d_x" + in_part);
  EXPECT_EQ(refused([&] { norm.backward(d_y, x, shifted); }), "LayerNorm::backward: d_x" + in_part);
  oracle::expect_same_bits(all, before, "all");
  for (const Parameter& each : linear.parameters()) {
    oracle::expect_same_bits(each.gradient, Tensor(DType::kFloat32, each.gradient.shape()),
                             each.name);
  }
}

TEST(Refusals, GradientsOfAnotherModule) {
  MultiheadAttention::Config config{.embed_dim = 8, .num_heads = 2, .layout = Layout::kBatchFirst};
  MultiheadAttention module(config, 1);
  config.bias = false;
  const MultiheadAttention bare(config, 1);
  EXPECT_EQ(refused([&] { parameters_of(module, ParameterGradients{}); }),
            "parameters_of: gradients: has 0 gradients; must be 4, as the state dict");
  EXPECT_EQ(refused([&] { parameters_of(module, ParameterGradients(bare.state_dict())); }),
            "parameters_of: gradients: has 2 gradients; must be 4, as the state dict");
  ParameterViews turned = module.parameters();
  std::swap(turned[1], turned[3]);
  EXPECT_EQ(refused([&] { listed_parameters(module.parameters(), turned); }),
            "parameters_of: gradients: gradient 1 is of out_proj.bias; must be of in_proj_bias, as "
            "the state dict");
}

TEST(Refusals, LinearBackwardWritesNothing) {
  Random random{.seed = 1};
  Linear linear({.in_features = 3, .out_features = 4}, random);
  const Tensor x = random_tensor(DType::kFloat32, {2, 3}, 1);
  const Tensor d_y = random_tensor(DType::kFloat32, {2, 4}, 2);
  Tensor wide(DType::kFloat32, {2, 5}), longer(DType::kFloat32, {3, 3});
  Tensor twice(DType::kFloat64, {2, 3});
  const auto backward = [&](const TensorView& d_x) {
    return refused([&] { linear.backward(x, d_y, d_x, true); });
  };
  EXPECT_EQ(backward(wide), "Linear::backward: d_x: has 5 features; must be 3 wide");
  EXPECT_EQ(backward(longer),
            "Linear::backward: d_x: has batch 1, length 3; must be batch 1, length 2, as x");
  EXPECT_EQ(backward(twice), "Linear::backward: d_x: dtype is float64; must be float32");
  for (const Parameter& each : linear.parameters()) {
    oracle::expect_same_bits(each.gradient, Tensor(DType::kFloat32, each.gradient.shape()),
                             each.name);
  }
}

TEST(Refusals, Ids) {
  Embedding embedding(random_tensor(DType::kFloat32, {5, 2}, 1));
  Tensor ids = random_ids({3}, 5, 2), x(DType::kFloat32, {3});
  ids.data_as<int64_t>()[1] = 5;
  EXPECT_EQ(refused([&] { embedding.forward(ids); }),
            "Embedding::forward: ids: element 1 is 5; must be in [0, 5)");
  EXPECT_EQ(refused([&] { embedding.forward(x); }),
            "Embedding::forward: ids: dtype is float32; must be int64");
  EXPECT_EQ(refused([&] { embedding.backward(random_ids({3}, 5, 2), x); }),
            "Embedding::backward: d_y: shape is [3]; must be [3, 2]");
  EXPECT_EQ(refused([&] { Embedding(x.view()); }),
            "Embedding: weight: shape is [3]; must be [count, width], at least 1 each");
  Tensor logits(DType::kFloat32, {3, 5});
  EXPECT_EQ(refused([&] { cross_entropy(logits, ids); }),
            "cross_entropy: targets: element 1 is 5; must be in [0, 5), or -100 (ignore_index)");
  EXPECT_EQ(refused([&] { cross_entropy(logits, random_ids({4}, 5, 2)); }),
            "cross_entropy: targets: shape is [4]; must be [3]");
  EXPECT_TRUE(std::isfinite(cross_entropy(logits, ids, {}, 5)));
}

TEST(Refusals, Functions) {
  Tensor x(DType::kFloat32, {4}), ints(DType::kInt32, {4}), longer(DType::kFloat32, {5});
  EXPECT_EQ(refused([&] { gelu(ints); }), "gelu: x: dtype is int32; must be float32 or float64");
  EXPECT_EQ(refused([&] { relu_into(x, longer); }), "relu: y: shape is [5]; must be [4]");
  EXPECT_EQ(refused([&] { add_to(x, longer); }), "add_to: x: shape is [5]; must be [4]");
}

class Optimizing : public testing::Test {
 protected:
  Optimizing() {
    parameters_.add("a", a_, d_a_);
    parameters_.add("b.weight", b_, d_b_);
  }

  Tensor a_ = random_tensor(DType::kFloat32, {7}, 1), d_a_ = random_tensor(DType::kFloat32, {7}, 2);
  Tensor b_ = random_tensor(DType::kFloat64, {40, 1000}, 3), d_b_{DType::kFloat64, {40, 1000}};
  ParameterList parameters_;
};

TEST_F(Optimizing, NoNumbersInAGradientStopTheStepBeforeItChangesAnything) {
  AdamW optimizer(parameters_);
  optimizer.step();
  const Tensor a = a_, b = b_, mean = optimizer.moments()[0].mean;
  const double inf = std::numeric_limits<double>::infinity();
  for (const double bad : {inf, -inf, std::numeric_limits<double>::quiet_NaN()}) {
    d_b_.data_as<double>()[39999] = bad;
    const std::string got = std::isnan(bad) ? "nan" : "infinite";
    EXPECT_EQ(refused([&] { optimizer.step(); }),
              "AdamW::step: gradient of b.weight: element 39999 is " + got + "; must be finite");
    EXPECT_EQ(
        refused([&] { clip_gradient_norm(parameters_, 1); }),
        "clip_gradient_norm: gradient of b.weight: element 39999 is " + got + "; must be finite");
  }
  EXPECT_EQ(optimizer.steps(), 1);
  oracle::expect_same_bits(a_, a, "a");
  oracle::expect_same_bits(b_, b, "b");
  oracle::expect_same_bits(d_a_, random_tensor(DType::kFloat32, {7}, 2), "gradient of a");
  oracle::expect_same_bits(optimizer.moments()[0].mean, mean, "mean");
}

TEST_F(Optimizing, AGradientWhoseSquareOverflowsStopsTheStep) {
  AdamW optimizer(parameters_);
  const Tensor a = a_;
  d_a_.data_as<float>()[3] = 3e38F;
  EXPECT_EQ(refused([&] { optimizer.step(); }),
            "AdamW::step: gradient of a: element 3 is 3e+38, its square infinite; must be finite");
  EXPECT_EQ(optimizer.steps(), 0);
  oracle::expect_same_bits(a_, a, "a");
  oracle::expect_same_bits(optimizer.moments()[0].square, Tensor(DType::kFloat32, {7}), "square");
  d_a_.data_as<float>()[3] = 1e19F;  // of a finite square
  optimizer.step();
  EXPECT_TRUE(std::isfinite(optimizer.moments()[0].square.data_as<float>()[3]));
}

TEST_F(Optimizing, MomentsThatNoOptimiserComesTo) {
  AdamW optimizer(parameters_);
  std::vector<AdamW::Moments> nan = optimizer.moments(), negative = nan;
  nan[0].mean.data_as<float>()[2] = std::nanf("");
  negative[1].square.data_as<double>()[39999] = -0.5;
  EXPECT_EQ(refused([&] { optimizer.restore(1, nan, {}); }),
            "AdamW::restore: mean of a: element 2 is nan; must be finite");
  EXPECT_EQ(refused([&] { optimizer.restore(1, negative, {}); }),
            "AdamW::restore: square of b.weight: element 39999 is -0.5; must be 0 or more");
  EXPECT_EQ(optimizer.steps(), 0);
}

TEST_F(Optimizing, ANormThatOverflowsIsRefused) {
  oracle::fill(d_b_, 1e200);
  EXPECT_EQ(refused([&] { clip_gradient_norm(parameters_, 1); }),
            "clip_gradient_norm: norm: the squares overflow; must be finite");
}

TEST_F(Optimizing, OptionsAndLists) {
  EXPECT_EQ(refused([&] { AdamW(parameters_, {.beta1 = 1}); }),
            "AdamW: beta1: 1; must be in [0, 1)");
  EXPECT_EQ(refused([&] { AdamW(parameters_, {.learning_rate = -1}); }),
            "AdamW: learning_rate: -1; must be finite and 0 or more");
  EXPECT_EQ(refused([&] { parameters_.add("a", a_, d_a_); }),
            "ParameterList::add: name: a is there already; must be new");
  EXPECT_EQ(refused([&] { parameters_.add("", a_, d_a_); }),
            "ParameterList::add: name: is empty; must be a name");
  EXPECT_EQ(refused([&] { parameters_.add("c", a_, d_b_); }),
            "ParameterList::add: c: gradient: dtype is float64; must be float32");
  EXPECT_EQ(refused([&] { clip_gradient_norm(parameters_, -1); }),
            "clip_gradient_norm: max_norm: -1; must be 0 or more");
  EXPECT_EQ(refused([&] { AdamW(parameters_).restore(1, {}, {}); }),
            "AdamW::restore: moments: of 0 parameters; must be 2");
}

TEST(CrossEntropy, OfNoTokensIsNoNumberAndItsGradientZero) {
  const Tensor logits = random_tensor(DType::kFloat32, {2, 3}, 1);
  Tensor targets(DType::kInt64, {2}), d_logits(DType::kFloat32, {2, 3});
  targets.data_as<int64_t>()[0] = targets.data_as<int64_t>()[1] = -100;
  oracle::fill(d_logits, 7);
  EXPECT_TRUE(std::isnan(cross_entropy(logits, targets, d_logits)));
  oracle::expect_same_bits(d_logits, Tensor(DType::kFloat32, {2, 3}), "d_logits");
}

TEST(Random, IsItsSeedAndCounter) {
  Random random{.seed = 5};
  for (int i = 0; i < 10; ++i) random.normal();
  Random resumed{.seed = 5, .counter = random.counter};
  for (int i = 0; i < 10; ++i) EXPECT_EQ(random.bits(), resumed.bits());
  std::vector<int> seen(7);
  for (int i = 0; i < 7000; ++i) ++seen[static_cast<size_t>(random.below(7))];
  const double deviation = std::sqrt(7000 * (1.0 / 7) * (6.0 / 7));
  for (const int count : seen) {
    EXPECT_LE(std::abs(count - 1000), oracle::kDeviations * deviation);
  }
  EXPECT_EQ(refused([&] { random.below(0); }), "Random::below: limit: 0; must be at least 1");
}

}  // namespace
}  // namespace polyhead::nn
