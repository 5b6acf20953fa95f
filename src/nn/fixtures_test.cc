// polyhead::nn in float64 against the answers of torch (tools/make_nn_fixtures.py).
#include "nn/nn_test_tools.h"

namespace polyhead::nn {
namespace {

class Fixtures : public testing::Test {
 protected:
  Tensor read(const std::string& name) const { return file_.read(name); }
  void expect(const ConstTensorView& got, const std::string& name) const {
    expect_close(got, read(name), "nn.torch.float64", name);
  }
  void expect_gradient(const ParameterList& parameters, const std::string& name,
                       const std::string& tensor) const {
    expect(parameters.find(name)->gradient, tensor);
  }

  SafetensorsFile file_{POLYHEAD_TEST_DATA "/nn_fixtures.safetensors"};
};

TEST_F(Fixtures, Linear) {
  class Linear linear(read("linear/weight"), read("linear/bias"));
  const Tensor x = read("linear/x");
  Tensor d_x(x.dtype(), x.shape());
  expect(linear.forward(x), "linear/y");
  linear.backward(x, read("linear/d_y"), d_x);
  expect(d_x, "linear/d_x");
  expect_gradient(linear.parameters(), "weight", "linear/d_weight");
  expect_gradient(linear.parameters(), "bias", "linear/d_bias");
}

TEST_F(Fixtures, LayerNorm) {
  class LayerNorm norm(read("layer_norm/weight"), read("layer_norm/bias"), 0.001);
  const Tensor x = read("layer_norm/x");
  Tensor d_x(x.dtype(), x.shape());
  expect(norm.forward(x), "layer_norm/y");
  norm.backward(x, read("layer_norm/d_y"), d_x);
  expect(d_x, "layer_norm/d_x");
  expect_gradient(norm.parameters(), "weight", "layer_norm/d_weight");
  expect_gradient(norm.parameters(), "bias", "layer_norm/d_bias");
}

TEST_F(Fixtures, Activations) {
  for (const std::string name : {"gelu", "relu"}) {
    const Tensor x = read(name + "/x"), d_y = read(name + "/d_y");
    Tensor d_x(x.dtype(), x.shape());
    expect(name == "gelu" ? gelu(x) : relu(x), name + "/y");
    (name == "gelu" ? gelu_backward : relu_backward)(x, d_y, d_x);
    expect(d_x, name + "/d_x");
  }
}

TEST_F(Fixtures, Embedding) {
  class Embedding embedding(read("embedding/weight"));
  const Tensor ids = read("embedding/ids");
  expect(embedding.forward(ids), "embedding/y");
  embedding.backward(ids, read("embedding/d_y"));
  expect_gradient(embedding.parameters(), "weight", "embedding/d_weight");
}

TEST_F(Fixtures, CrossEntropy) {
  for (const std::string name : {"cross_entropy", "cross_entropy_peaked"}) {
    const Tensor logits = read(name + "/logits"), targets = read(name + "/targets");
    Tensor d_logits(logits.dtype(), logits.shape());
    Tensor loss(DType::kFloat64, Shape());
    loss.data_as<double>()[0] = cross_entropy(logits, targets, d_logits);
    expect(loss, name + "/loss");
    expect(d_logits, name + "/d_logits");
    EXPECT_EQ(cross_entropy(logits, targets), loss.data_as<double>()[0]) << "without gradient";
  }
}

TEST_F(Fixtures, AdamWAndClipping) {
  Tensor weight = read("adamw/weight"), bias = read("adamw/bias");
  Tensor d_weight(weight.dtype(), weight.shape()), d_bias(bias.dtype(), bias.shape());
  ParameterList parameters;
  parameters.add("weight", weight, d_weight);
  parameters.add("bias", bias, d_bias);
  parameters[1].decays = false;
  AdamW optimizer(parameters, {.learning_rate = 0.05,
                               .beta1 = 0.8,
                               .beta2 = 0.95,
                               .epsilon = 0.000001,
                               .weight_decay = 0.2});
  for (const std::string step : {"adamw/0/", "adamw/1/", "adamw/2/", "adamw/3/"}) {
    std::copy_n(read(step + "d_weight").data_as<double>(), 12, d_weight.data_as<double>());
    std::copy_n(read(step + "d_bias").data_as<double>(), 4, d_bias.data_as<double>());
    Tensor norm(DType::kFloat64, Shape());
    norm.data_as<double>()[0] = clip_gradient_norm(parameters, 1.5);
    expect(norm, step + "norm");
    optimizer.step();
    expect(weight, step + "weight");
    expect(bias, step + "bias");
  }
  EXPECT_EQ(optimizer.steps(), 4);
}

}  // namespace
}  // namespace polyhead::nn
