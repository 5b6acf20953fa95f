// The README's from-scratch PyTorch class, parameter by parameter: q_linear, k_linear, v_linear,
// fc_out.
#include <cmath>
#include <cstdio>
#include <vector>

#include <polyhead/polyhead.h>

using namespace polyhead;

// Queries of length 5 attend to the first 7 of 9 keys.
Tensor attend(const std::vector<float>& query, const std::vector<float>& key) {
  std::vector<float> mask(9, 0);
  mask[7] = mask[8] = 1;

  FromScratchMultiHeadAttention attention(64, 8);     // embed_size, num_heads
  const ConstTensorView q(query.data(), {2, 5, 64});  // [batch, q_len, embed_size]
  const ConstTensorView k(key.data(), {2, 9, 64});
  const ConstTensorView hidden(mask.data(), {1, 1, 1, 9});  // 1 hides, softly: times -1e5
  Tensor out = attention.forward(q, k, k, hidden);          // [batch, q_len, embed_size]
  return out;
}

std::vector<float> numbers(size_t count, float step) {
  std::vector<float> made(count);
  for (size_t i = 0; i < count; ++i) made[i] = std::sin(step * static_cast<float>(i));
  return made;
}

// The two keys that the mask hides must not matter: other numbers there, the same output.
bool hidden_keys_do_not_matter(const Tensor& out, const std::vector<float>& query,
                               std::vector<float> key) {
  for (size_t batch = 0; batch < 2; ++batch) {
    for (size_t i = 7 * 64; i < 9 * 64; ++i) key[batch * 9 * 64 + i] = 0.5F;
  }
  const Tensor again = attend(query, key);
  for (int64_t i = 0; i < out.numel(); ++i) {
    if (out.data_as<float>()[i] != again.data_as<float>()[i]) return false;
  }
  return true;
}

int main() {
  const std::vector<float> query = numbers(2 * 5 * 64, 0.7F), key = numbers(2 * 9 * 64, 0.3F);
  const Tensor out = attend(query, key);
  std::printf("out %s, %.4f first\n", out.shape_string().c_str(), out.data_as<float>()[0]);
  if (!hidden_keys_do_not_matter(out, query, key)) return 1;

  try {
    FromScratchMultiHeadAttention(64, 7);
  } catch (const InvalidArgument& error) {
    std::printf("refused: %s\n", error.what());
    return 0;
  }
  return 1;  // 64 is not divisible by 7: the class's assertion must have fired
}
