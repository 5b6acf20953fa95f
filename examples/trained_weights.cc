// A layer trained in PyTorch: output and the attention of every head, beside what PyTorch answered.
// The layer learned to repeat the word before (tools/make_example_weights.py); saved by
//
//   from safetensors.torch import save_file
//   layer = torch.nn.MultiheadAttention(64, 8, batch_first=True)
//   train(layer)
//   out, weights = layer(x, x, x, padding, attn_mask=future, average_attn_weights=False)
//   save_file(layer.state_dict(), "layer.safetensors", {"num_heads": "8"})
#include <array>
#include <cmath>
#include <cstdio>
#include <vector>

#include <polyhead/polyhead.h>

using namespace polyhead;

// What run() sees of a vector<bool> would be no memory it could read: hence the array.
using Hidden = std::array<bool, 2 * 5>;

MultiheadAttention::Result run(const char* path, const std::vector<float>& numbers,
                               const Hidden& hidden) {
  auto attention = MultiheadAttention::load(path, {.layout = Layout::kBatchFirst});

  const ConstTensorView x(numbers.data(), {2, 5, 64});   // [batch, len, embed_dim]
  const ConstTensorView padding(hidden.data(), {2, 5});  // true: this key is hidden
  return attention.forward(
      x, x, x,
      {.key_padding_mask = padding, .is_causal = true, .need_weights = WeightsMode::kPerHead});
}

float largest_difference(const Tensor& ours, const Tensor& theirs) {
  float largest = ours.shape_string() == theirs.shape_string() ? 0 : INFINITY;
  for (int64_t i = 0; i < ours.numel() && std::isfinite(largest); ++i) {
    largest = std::fmax(largest, std::fabs(ours.data_as<float>()[i] - theirs.data_as<float>()[i]));
  }
  return largest;
}

int main() {
  const SafetensorsFile answer("answer.safetensors");  // x, and what PyTorch made of it
  const Tensor x = answer.read("x");
  const Hidden hidden = {false, false, false, false, false,  //
                         false, false, false, true,  true};
  const std::vector<float> numbers(x.data_as<float>(), x.data_as<float>() + x.numel());
  const auto [out, weights] = run("layer.safetensors", numbers, hidden);  // weights [2, 8, 5, 5]

  std::puts("head 0 of the first sequence: each row is a word, looking at those before it");
  for (int i = 0; i < 5; ++i) {
    for (int j = 0; j < 5; ++j) std::printf(" %.3f", weights.data_as<float>()[5 * i + j]);
    std::puts("");
  }
  const float of_out = largest_difference(out, answer.read("out"));
  const float of_weights = largest_difference(weights, answer.read("weights"));
  std::printf("from PyTorch at most %.1e in out, %.1e in weights\n", of_out, of_weights);
  return of_out < 1e-5F && of_weights < 1e-5F ? 0 : 1;
}
