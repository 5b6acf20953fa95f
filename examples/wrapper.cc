// The first PyTorch class of the README: a thin wrapper around the ready-made attention module.
#include <cstdio>
#include <vector>

#include <polyhead/polyhead.h>

using namespace polyhead;

class MultiHeadAttention {
 public:
  MultiHeadAttention(int64_t embed_size, int64_t num_heads)
      : attention_({embed_size, num_heads, Layout::kSequenceFirst}) {}

  Tensor forward(ConstTensorView q, ConstTensorView k, ConstTensorView v,
                 ConstTensorView mask = {}) const {
    return attention_.forward(q, k, v, {.attn_mask = mask}).out;
  }

 private:
  MultiheadAttention attention_;
};

int main() {
  const std::vector<float> numbers(5 * 2 * 64, 0.5F);
  const ConstTensorView x(numbers.data(), {5, 2, 64});  // [q_len, batch, embed_dim]
  const Tensor out = MultiHeadAttention(64, 8).forward(x, x, x);
  std::printf("out %s\n", out.shape_string().c_str());
  return out.size(0) == 5 && out.size(2) == 64 ? 0 : 1;
}
