// What holds for every layer and function: float32 beside float64, bits, and central differences.
#include <polyhead/runtime.h>
#include "nn/nn_test_tools.h"
#include "testing/machine.h"

namespace polyhead::nn {
namespace {

// A layer's forward and backward on [rows, width] of random numbers: all that comes out.
struct Results {
  std::vector<Tensor> tensors;

  void keep(const ConstTensorView& tensor) { tensors.emplace_back(tensor); }
  void keep_gradients(const ParameterList& parameters) {
    for (const Parameter& each : parameters) keep(each.gradient);
  }
};

struct Inputs {
  Tensor x, d_y, d_x;  // [rows, width]

  Inputs(DType dtype, int64_t rows, int64_t width)
      : x(random_tensor(dtype, {rows, width}, 1)),
        d_y(random_tensor(dtype, {rows, width}, 2)),
        d_x(dtype, {rows, width}) {}
};

Results run_linear(DType dtype, int64_t rows, int64_t width) {
  Inputs in(dtype, rows, width);
  Linear linear(random_tensor(dtype, {width, width}, 3), random_tensor(dtype, {width}, 4));
  Results results;
  results.keep(linear.forward(in.x));
  linear.backward(in.x, in.d_y, in.d_x);
  results.keep(in.d_x);
  results.keep_gradients(linear.parameters());
  return results;
}

Results run_layer_norm(DType dtype, int64_t rows, int64_t width) {
  Inputs in(dtype, rows, width);
  LayerNorm norm(random_tensor(dtype, {width}, 3), random_tensor(dtype, {width}, 4), 0.01);
  Results results;
  results.keep(norm.forward(in.x));
  norm.backward(in.x, in.d_y, in.d_x);
  results.keep(in.d_x);
  results.keep_gradients(norm.parameters());
  return results;
}

Results run_gelu(DType dtype, int64_t rows, int64_t width) {
  Inputs in(dtype, rows, width);
  Results results;
  results.keep(gelu(in.x));
  gelu_backward(in.x, in.d_y, in.d_x);
  results.keep(in.d_x);
  return results;
}

Results run_relu(DType dtype, int64_t rows, int64_t width) {
  Inputs in(dtype, rows, width);
  Results results;
  results.keep(relu(in.x));
  relu_backward(in.x, in.d_y, in.d_x);
  results.keep(in.d_x);
  return results;
}

Results run_embedding(DType dtype, int64_t rows, int64_t width) {
  Inputs in(dtype, rows, width);
  Embedding embedding(random_tensor(dtype, {11, width}, 3));
  const Tensor ids = random_ids({rows}, 11, 4);
  Results results;
  results.keep(embedding.forward(ids));
  embedding.backward(ids, in.d_y);
  results.keep_gradients(embedding.parameters());
  return results;
}

Results run_cross_entropy(DType dtype, int64_t rows, int64_t width) {
  Inputs in(dtype, rows, width);
  Tensor targets = random_ids({rows}, width, 4), loss(DType::kFloat64, {1});
  if (rows > 2) targets.data_as<int64_t>()[1] = -100;
  Results results;
  loss.data_as<double>()[0] = cross_entropy(in.x, targets, in.d_x);
  results.keep(in.d_x);
  if (dtype == DType::kFloat64) results.keep(loss);  // a double whatever the logits are
  return results;
}

Results run_clipping_and_step(DType dtype, int64_t rows, int64_t width) {
  Inputs in(dtype, rows, width);
  ParameterList parameters;
  parameters.add("x", in.x, in.d_y);
  AdamW optimizer(parameters, {.learning_rate = 0.1, .weight_decay = 0.5});
  for (int i = 0; i < 3; ++i) {
    clip_gradient_norm(parameters, 0.75 * static_cast<double>(i + 1));
    optimizer.step();
  }
  Results results;
  results.keep(in.x);
  results.keep(in.d_y);
  results.keep(optimizer.moments()[0].mean);
  results.keep(optimizer.moments()[0].square);
  return results;
}

struct Case {
  const char* name;
  Results (*run)(DType dtype, int64_t rows, int64_t width);
};

class EveryLayer : public testing::TestWithParam<Case> {
 protected:
  ~EveryLayer() override {
    force_isa(available_isas().front());
    set_num_threads(threads_);
  }
  const int threads_ = num_threads();
};
constexpr Case kCases[] = {{"linear", run_linear},
                           {"layer_norm", run_layer_norm},
                           {"gelu", run_gelu},
                           {"relu", run_relu},
                           {"embedding", run_embedding},
                           {"cross_entropy", run_cross_entropy},
                           {"clipping_and_step", run_clipping_and_step}};
INSTANTIATE_TEST_SUITE_P(Nn, EveryLayer, testing::ValuesIn(kCases),
                         [](const auto& each) { return std::string(each.param.name); });

constexpr int64_t kSizes[][2] = {{1, 1},   {2, 3},   {5, 7},    {1, 8},    {3, 15},  {31, 16},
                                 {32, 17}, {33, 24}, {65, 100}, {200, 48}, {40, 300}};

std::string text(const std::string& isa_name, int64_t rows, int64_t width, size_t tensor) {
  return message(isa_name, " [", rows, ", ", width, "] tensor ", tensor);
}

TEST_P(EveryLayer, Float32IsWithinBudgetOfFloat64) {
  for (const std::string& name : available_isas()) {
    force_isa(name);
    for (const auto& [rows, width] : kSizes) {
      const Results got = GetParam().run(DType::kFloat32, rows, width);
      const Results truth = GetParam().run(DType::kFloat64, rows, width);
      for (size_t i = 0; i < got.tensors.size(); ++i) {
        expect_close(got.tensors[i], truth.tensors[i], "nn.float32", text(name, rows, width, i));
      }
    }
  }
}

void expect_same_bits(const Results& got, const Results& expected, const std::string& what) {
  for (size_t i = 0; i < got.tensors.size(); ++i) {
    oracle::expect_same_bits(got.tensors[i], expected.tensors[i],
                             message(what, " ", expected.tensors[i].view().shape_string()));
  }
}

TEST_P(EveryLayer, BitsDoNotDependOnThreadsOrIsa) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat64}) {
    for (const auto& [rows, width] : {std::pair(200, 48), {65, 100}, {40, 1000}, {5, 7}}) {
      force_isa(available_isas().front());
      set_num_threads(1);
      const Results expected = GetParam().run(dtype, rows, width);
      for (const std::string& name : oracle::isas_with_fma()) {
        force_isa(name);
        for (const int threads : {1, 2, 3, 7}) {
          set_num_threads(threads);
          expect_same_bits(GetParam().run(dtype, rows, width), expected, name);
        }
      }
    }
  }
}

double dot(const ConstTensorView& a, const ConstTensorView& b) {
  double sum = 0;
  oracle::for_each_index(
      a.shape(), [&](const Index& at) { sum += oracle::read(a, at) * oracle::read(b, at); });
  return sum;
}

template <class Layer>
void expect_layer_gradients(Layer& layer, Inputs& in) {
  const auto loss = [&] { return dot(layer.forward(in.x), in.d_y); };
  layer.backward(in.x, in.d_y, in.d_x);
  const ParameterList parameters = layer.parameters();
  expect_gradient(loss, in.x, in.d_x, "x");
  for (const Parameter& each : parameters) {
    const auto updated_loss = [&] {
      parameters.updated();
      return loss();
    };
    expect_gradient(updated_loss, each.value, each.gradient, each.name);
  }
}

TEST(Gradients, AgreeWithCentralDifferences) {
  Inputs in(DType::kFloat64, 4, 5);
  Random random{.seed = 3};
  Linear linear({.in_features = 5, .out_features = 5, .dtype = DType::kFloat64}, random);
  expect_layer_gradients(linear, in);
  LayerNorm norm(random_tensor(DType::kFloat64, {5}, 5), random_tensor(DType::kFloat64, {5}, 6), 1);
  expect_layer_gradients(norm, in);
  gelu_backward(in.x, in.d_y, in.d_x);
  expect_gradient([&] { return dot(gelu(in.x), in.d_y); }, in.x, in.d_x, "gelu");
  const Tensor targets = random_ids({4}, 5, 7);
  cross_entropy(in.x, targets, in.d_x);
  expect_gradient([&] { return cross_entropy(in.x, targets); }, in.x, in.d_x, "cross_entropy");
}

// Residual connections work on what is there; `accumulate` adds the finished sum.
TEST(Gradients, OutputsMayBeInputs) {
  const DType dtype = DType::kFloat32;
  Inputs in(dtype, 40, 33);
  LayerNorm norm(random_tensor(dtype, {33}, 3), random_tensor(dtype, {33}, 4));
  Linear linear(random_tensor(dtype, {33, 33}, 3), {});
  const Tensor targets = random_ids({40}, 33, 5);
  const auto expect_same = [&](const Tensor& source, const auto& run, const char* what) {
    Tensor apart(dtype, source.shape()), in_place = source;
    run(source.view(), apart.view());
    run(std::as_const(in_place).view(), in_place.view());
    oracle::expect_same_bits(in_place, apart, what);
  };
  using In = const ConstTensorView&;
  using Out = const TensorView&;
  expect_same(in.x, [&](In x, Out y) { norm.forward_into(x, y); }, "norm");
  expect_same(in.x, [&](In x, Out y) { gelu_into(x, y); }, "gelu");
  expect_same(in.x, [&](In x, Out y) { relu_into(x, y); }, "relu");
  expect_same(in.d_y, [&](In d, Out to) { norm.backward(in.x, d, to); }, "norm backward");
  expect_same(in.x, [&](In x, Out to) { norm.backward(x, in.d_y, to); }, "norm backward over x");
  expect_same(in.x, [&](In x, Out to) { linear.backward(x, in.d_y, to); }, "linear backward");
  expect_same(in.d_y, [&](In d, Out to) { gelu_backward(in.x, d, to); }, "gelu backward");
  expect_same(in.d_y, [&](In d, Out to) { relu_backward(in.x, d, to); }, "relu backward");
  expect_same(in.x, [&](In x, Out d) { cross_entropy(x, targets, d); }, "cross_entropy");
}

TEST(Gradients, AccumulateAdds) {
  const DType dtype = DType::kFloat32;
  Inputs in(dtype, 40, 33);
  const Tensor ids = random_ids({40}, 9, 5);
  LayerNorm norm(33);
  Random random{.seed = 1};
  Linear linear({.in_features = 33, .out_features = 33}, random);
  Embedding embedding(9, 33, random);
  const auto backwards = [&](bool accumulate) {
    norm.backward(in.x, in.d_y, {}, accumulate);
    linear.backward(in.x, in.d_y, {}, accumulate);
    embedding.backward(ids, in.d_y, accumulate);
  };
  ParameterList all;
  all.append("norm.", norm.parameters());
  all.append("linear.", linear.parameters());
  backwards(false);
  Tensor rows(embedding.parameters()[0].gradient);
  std::vector<Tensor> doubled;
  for (const Parameter& each : all) {
    doubled.emplace_back(each.gradient);
    add_to(doubled.back(), each.gradient);
  }
  backwards(true);
  for (size_t i = 0; i < all.size(); ++i) {
    oracle::expect_same_bits(all[i].gradient, doubled[i], all[i].name);
  }
  add_to(rows, Tensor(rows.view()));  // row by row, so not the same bits
  expect_close(embedding.parameters()[0].gradient, rows, "nn.float32", "accumulated");
  all.zero_gradients();
  EXPECT_EQ(dot(all[0].gradient, all[0].gradient), 0);
}

}  // namespace
}  // namespace polyhead::nn
