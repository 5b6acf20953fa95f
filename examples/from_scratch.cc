// The seed's second class, parameter by parameter: q_linear, k_linear, v_linear, fc_out.
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

int main() {
  const std::vector<float> query(2 * 5 * 64, 0.25F), key(2 * 9 * 64, 0.5F);
  const Tensor out = attend(query, key);
  std::printf("out %s\n", out.shape_string().c_str());

  try {
    FromScratchMultiHeadAttention(64, 7);
  } catch (const InvalidArgument& error) {
    std::printf("refused: %s\n", error.what());
    return out.size(1) == 5 ? 0 : 1;
  }
  return 1;  // 64 is not divisible by 7: the seed's assertion must have fired
}
