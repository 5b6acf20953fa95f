// Weights trained in PyTorch, from a safetensors file, with a padding mask and per-head weights.
#include <array>
#include <cstdio>
#include <filesystem>
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

int main() {
  const auto path = std::filesystem::temp_directory_path() / "polyhead_example.safetensors";
  MultiheadAttention({.embed_dim = 64, .num_heads = 8, .layout = Layout::kBatchFirst})
      .save(path.string());
  const Hidden hidden = {false, false, false, false, false,  //
                         false, false, false, true,  true};
  const auto [out, weights] = run(path.c_str(), std::vector<float>(2 * 5 * 64, 0.5F), hidden);
  std::filesystem::remove(path);
  std::printf("out %s, weights %s\n", out.shape_string().c_str(), weights.shape_string().c_str());
  return weights.size(1) == 8 ? 0 : 1;
}
