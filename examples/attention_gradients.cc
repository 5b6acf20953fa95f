// Gradients of attention without a module: queries learn, by plain gradient descent, to attend to
// the keys that give what is wanted.
#include <cmath>
#include <cstdio>
#include <vector>

#include <polyhead/polyhead.h>

using namespace polyhead;

constexpr int64_t kHeads = 2, kQueries = 4, kKeys = 6, kHeadDim = 8;
constexpr int kSteps = 300;
constexpr float kRate = 4;

Tensor wave(std::vector<int64_t> shape, float frequency) {
  Tensor tensor(DType::kFloat32, shape);
  auto* data = tensor.data_as<float>();
  for (int64_t n = 0; n < tensor.numel(); ++n) {
    data[n] = std::sin(frequency * static_cast<float>(n));
  }
  return tensor;
}

// target[h][i] = value[h][(i + 2) mod S]: query i is to find the key two places on.
Tensor shifted(const Tensor& value) {
  Tensor target(DType::kFloat32, {1, kHeads, kQueries, kHeadDim});
  const auto* from = value.data_as<float>();
  auto* to = target.data_as<float>();
  for (int64_t h = 0; h < kHeads; ++h) {
    for (int64_t i = 0; i < kQueries * kHeadDim; ++i) {
      *to++ = from[h * kKeys * kHeadDim + (i + 2 * kHeadDim) % (kKeys * kHeadDim)];
    }
  }
  return target;
}

// Half the sum of squares of out - target; d_out receives out - target.
double loss_of(const Tensor& out, const Tensor& target, Tensor& d_out) {
  double loss = 0;
  for (int64_t n = 0; n < out.numel(); ++n) {
    const float off = out.data_as<float>()[n] - target.data_as<float>()[n];
    d_out.data_as<float>()[n] = off;
    loss += 0.5 * static_cast<double>(off) * static_cast<double>(off);
  }
  return loss;
}

int main() {
  Tensor query = wave({1, kHeads, kQueries, kHeadDim}, 0.31F);
  const Tensor key = wave({1, kHeads, kKeys, kHeadDim}, 0.83F);
  const Tensor value = wave({1, kHeads, kKeys, kHeadDim}, 0.57F), target = shifted(value);
  Tensor out(query), d_out(query), d_query(query), lse(DType::kFloat32, {1, kHeads, kQueries});

  double first = 0, last = 0;
  for (int step = 0; step < kSteps; ++step) {
    attention_forward(query, key, value, {}, {.out = out, .lse = lse});
    last = loss_of(out, target, d_out);
    if (step == 0) first = last;
    attention_backward(query, key, value, {}, {.out = out, .lse = lse, .d_out = d_out},
                       {.d_query = d_query});
    for (int64_t n = 0; n < query.numel(); ++n) {
      query.data_as<float>()[n] -= kRate * d_query.data_as<float>()[n];
    }
  }
  std::printf("loss %.4f, after %d steps %.6f\n", first, kSteps, last);
  return last < first / 10 ? 0 : 1;  // the target itself would take scores without bound
}
