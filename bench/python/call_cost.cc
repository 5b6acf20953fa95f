// What the calls of overhead.py cost without Python: one line each, "name|microseconds".
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <initializer_list>
#include <string>

#include <polyhead/attention.h>
#include <polyhead/multihead_attention.h>
#include <polyhead/runtime.h>

namespace polyhead::bench {
namespace {

constexpr int64_t kLen = 16, kHeads = 8;

// The shortest of many groups: what others on the machine took is left out.
void print(const std::string& name, const std::function<void()>& call) {
  using Clock = std::chrono::steady_clock;
  constexpr int kGroups = 1000, kCalls = 5;
  double least = 1e9;
  for (int group = 0; group < kGroups; ++group) {
    const Clock::time_point start = Clock::now();
    for (int i = 0; i < kCalls; ++i) call();
    const std::chrono::duration<double, std::micro> spent = Clock::now() - start;
    least = std::min(least, spent.count() / kCalls);
  }
  std::printf("%s|%.2f\n", name.c_str(), least);
}

Tensor numbers(std::initializer_list<int64_t> shape) {
  Tensor tensor(DType::kFloat32, shape);
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    tensor.data_as<float>()[i] = static_cast<float>(i * 37 % 101) / 50 - 1;
  }
  return tensor;
}

void attention() {
  const Tensor x = numbers({1, kHeads, kLen, 64});  // [B, H, L, D]
  Tensor out(DType::kFloat32, x.shape());
  print("attention", [&] { attention_forward(x, x, x, {}, {.out = out}); });
}

void module(int64_t width) {
  const MultiheadAttention layer(
      {.embed_dim = width, .num_heads = kHeads, .layout = Layout::kBatchFirst}, 1);
  const Tensor x = numbers({1, kLen, width}), d_out = numbers({1, kLen, width});  // [B, L, E]
  Tensor out(DType::kFloat32, x.shape()), d_x(DType::kFloat32, x.shape());
  const std::string name = "module " + std::to_string(width);
  print(name, [&] { layer.forward_into(x, x, x, {}, out, {}); });
  TrainingContext context;
  ParameterGradients gradients(layer.state_dict());
  print(name + " training", [&] {
    layer.forward_into(x, x, x, {}, {.out = out}, &context);
    layer.backward(context, {.d_out = d_out}, {.d_query = d_x, .d_key = d_x, .d_value = d_x},
                   gradients.views());
  });
}

}  // namespace
}  // namespace polyhead::bench

int main() {
  polyhead::set_num_threads(1);
  polyhead::bench::attention();
  for (const int64_t width : {64, 512}) polyhead::bench::module(width);
  return 0;
}
