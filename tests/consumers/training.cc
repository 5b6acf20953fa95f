// What a user of polyhead::nn writes: one step of training, in a program that links both libraries.
#include <polyhead/nn.h>

#include <cmath>
#include <cstdio>
#include <vector>

int main() {
  namespace nn = polyhead::nn;
  nn::Random random{.seed = 1};
  nn::Embedding tokens(7, 8, random);
  nn::LayerNorm norm(8);
  nn::Linear head({.in_features = 8, .out_features = 7}, random);
  nn::ParameterList all;
  all.append("tokens.", tokens.parameters());
  all.append("norm.", norm.parameters());
  all.append("head.", head.parameters());
  nn::AdamW optimizer(all, {.learning_rate = 0.05});

  const std::vector<int64_t> ids = {1, 2, 3, 4, 5}, next = {2, 3, 4, 5, 6};
  const polyhead::ConstTensorView in(ids.data(), {1, 5}), targets(next.data(), {1, 5});
  double first = 0, last = 0;
  for (int step = 0; step < 30; ++step) {
    const polyhead::Tensor x = tokens.forward(in), y = norm.forward(x), logits = head.forward(y);
    polyhead::Tensor d_logits(logits.dtype(), logits.shape()), d_y(y.dtype(), y.shape());
    last = nn::cross_entropy(logits, targets, d_logits);
    if (step == 0) first = last;
    head.backward(y, d_logits, d_y);
    norm.backward(x, d_y, d_y);
    tokens.backward(in, d_y);
    nn::clip_gradient_norm(optimizer.parameters(), 1);
    optimizer.step();
  }
  bool refused = false;
  try {
    norm.forward(in);
  } catch (const polyhead::InvalidArgument&) {  // thrown in the library, caught outside
    refused = true;
  }
  std::printf("polyhead %s, loss %.3f -> %.3f\n", polyhead::version(), first, last);
  return refused && last < first / 2 ? 0 : 1;
}
