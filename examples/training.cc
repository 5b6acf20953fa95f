// One layer learns what another one does: forward, backward, and a step of the optimiser.
#include <cstdio>
#include <vector>

#include <polyhead/nn.h>

using namespace polyhead;

constexpr MultiheadAttention::Config kConfig = {
    .embed_dim = 32, .num_heads = 4, .layout = Layout::kBatchFirst};

// The mean of (out - target)^2, and its derivative with respect to out.
double squared_error(const Tensor& out, const Tensor& target, Tensor* d_out) {
  const auto count = static_cast<double>(out.numel());
  double sum = 0;
  for (int64_t i = 0; i < out.numel(); ++i) {
    const double difference = out.data_as<float>()[i] - target.data_as<float>()[i];
    sum += difference * difference;
    d_out->data_as<float>()[i] = static_cast<float>(2 * difference / count);
  }
  return sum / count;
}

int main() {
  nn::Random random{.seed = 1};
  Tensor x(DType::kFloat32, {8, 20, 32});  // [batch, len, embed_dim]
  for (int64_t i = 0; i < x.numel(); ++i)
    x.data_as<float>()[i] = static_cast<float>(random.normal());
  const MultiheadAttention teacher(kConfig, /*seed=*/2);
  const Tensor target = teacher.forward(x, x, x, {.is_causal = true}).out;
  Tensor d_out(DType::kFloat32, x.shape());

  MultiheadAttention layer(kConfig, /*seed=*/1);
  ParameterGradients gradients(layer.state_dict());
  nn::AdamW optimizer(nn::parameters_of(layer, gradients), {.learning_rate = 1e-2});
  TrainingContext context;  // what backward needs of the forward; its memory serves every step
  std::vector<double> losses;
  for (int step = 0; step < 200; ++step) {
    const Tensor out = layer.forward(x, x, x, {.is_causal = true}, &context).out;
    losses.push_back(squared_error(out, target, &d_out));
    layer.backward(context, {.d_out = d_out}, {}, gradients.views());
    optimizer.step();
  }

  std::printf("loss %.5f at first, %.5f after %zu steps\n", losses.front(), losses.back(),
              losses.size());
  return losses.back() < losses.front() / 10 ? 0 : 1;
}
