// A mask of one's own: a window, and a bias that falls with distance at a slope of each head's own.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include <polyhead/polyhead.h>

using namespace polyhead;

constexpr int kLength = 6, kHeads = 2, kWindow = 2;
constexpr double kSlopes[kHeads] = {0.5, 2};

// What the two masks alone leave of a row's softmax, by the formula.
double expected(int head, int i, int j) {
  double sum = 0;
  for (int other = 0; other < kLength; ++other) {
    if (std::abs(i - other) <= kWindow) sum += std::exp(-kSlopes[head] * std::abs(i - other));
  }
  return std::abs(i - j) <= kWindow ? std::exp(-kSlopes[head] * std::abs(i - j)) / sum : 0;
}

int main() {
  bool near[kLength * kLength];            // [L, S]: the same for every head and batch
  float bias[kHeads * kLength * kLength];  // [H, L, S]
  for (int n = 0; n < kHeads * kLength * kLength; ++n) {
    const int head = n / (kLength * kLength), i = n / kLength % kLength, j = n % kLength;
    near[i * kLength + j] = std::abs(i - j) <= kWindow;
    bias[n] = static_cast<float>(-kSlopes[head] * std::abs(i - j));
  }
  AttentionOptions options;
  options.weights = WeightsMode::kPerHead;
  options.masks = {Mask::boolean({near, {kLength, kLength}}, MaskSense::kIncluded),
                   Mask::additive({bias, {kHeads, kLength, kLength}})};

  // Queries of 0 make all scores 0: the weights then show the masks and nothing else.
  const Tensor query(DType::kFloat32, {1, kHeads, kLength, 8});  // [B, H, L, D]
  Tensor out(DType::kFloat32, {1, kHeads, kLength, 8});
  Tensor weights(DType::kFloat32, {1, kHeads, kLength, kLength});
  attention_forward(query, query, query, options, {.out = out, .weights = weights});

  double worst = 0;
  for (int n = 0; n < kHeads * kLength * kLength; ++n) {
    const int head = n / (kLength * kLength), i = n / kLength % kLength, j = n % kLength;
    const double weight = weights.data_as<float>()[n];
    if (!near[i * kLength + j] && weight != 0) return 1;  // hidden is exactly 0
    worst = std::fmax(worst, std::fabs(weight - expected(head, i, j)));
    std::printf("%s%.3f", j == 0 ? "\n" : " ", weight);
  }
  std::printf("\nfrom the formula at most %.1e\n", worst);
  return worst < 1e-6 ? 0 : 1;
}
