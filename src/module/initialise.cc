#include "module/initialise.h"

#include <cmath>

#include "base/float_env.h"

namespace polyhead {
namespace {

template <class Draw>
void fill(const TensorView& tensor, const Draw& draw) {
  const int64_t n = tensor.numel();
  for (int64_t i = 0; i < n; ++i) {
    const double x = draw();
    if (tensor.dtype() == DType::kFloat32) {
      tensor.data_as<float>()[i] = static_cast<float>(x);
    } else {
      tensor.data_as<double>()[i] = x;
    }
  }
}

void fill_uniform(const TensorView& tensor, double bound, Random& random) {
  fill(tensor, [&] { return bound * (2 * random.uniform() - 1); });
}

double linear_bound(const ConstTensorView& weight) {
  return 1 / std::sqrt(static_cast<double>(weight.size(1)));
}

// xavier_uniform of the matrix as it is stored: packed weights get a smaller bound, as in torch.
void fill_xavier(Tensor& weight, Random& random) {
  if (!weight.defined()) return;
  const double sum = static_cast<double>(weight.size(0) + weight.size(1));
  fill_uniform(weight, std::sqrt(6 / sum), random);
}

void fill_normal(Tensor& tensor, Random& random) {
  if (!tensor.defined()) return;
  const double deviation = 1 / std::sqrt(static_cast<double>(tensor.size(2)));
  fill(tensor, [&] { return deviation * random.normal(); });
}

}  // namespace

uint64_t Random::bits() {
  uint64_t z = state_ += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

double Random::uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }

// Von Neumann: the chance that a run p > u1 > u2 > ... has length n or more is p^n / n!, so the
// chance of an even length is exp(-p).
bool Random::accept_exp(double p) {
  bool even = true;
  for (double last = p, u; (u = uniform()) < last; last = u) even = !even;
  return even;
}

// The density of k + x for k = 0, 1, ... and x in [0, 1) is
//   exp(-(k + x)^2 / 2) = exp(-1/2)^k . exp(-1/2)^(k (k - 1)) . exp(-x (2k + x) / 2).
double Random::normal() {
  for (;;) {
    int k = 0;
    while (accept_exp(0.5)) ++k;
    bool accepted = true;
    for (int i = 0; i < k * (k - 1) && accepted; ++i) accepted = accept_exp(0.5);
    const double x = uniform();
    for (int i = 0; i <= k && accepted; ++i) accepted = accept_exp(x * (2 * k + x) / (2 * k + 2));
    if (accepted) return (bits() >> 63) != 0 ? -(k + x) : k + x;
  }
}

void initialise_mha(AttentionParameters& parameters, uint64_t seed) {
  const DefaultFloatEnv env;
  Random random(seed);
  const double bound = linear_bound(parameters.out_proj_weight.view());
  fill_uniform(parameters.out_proj_weight, bound, random);
  if (parameters.out_proj_bias.defined()) {
    for (int64_t i = 0; i < parameters.out_proj_bias.numel(); ++i) random.uniform();
  }
  fill_xavier(parameters.in_proj_weight, random);
  fill_xavier(parameters.q_proj_weight, random);
  fill_xavier(parameters.k_proj_weight, random);
  fill_xavier(parameters.v_proj_weight, random);
  fill_normal(parameters.bias_k, random);
  fill_normal(parameters.bias_v, random);
}

void initialise_scratch(AttentionParameters& parameters, uint64_t seed) {
  const DefaultFloatEnv env;
  Random random(seed);
  double bound = 0;
  for (const auto& [name, view] : scratch_state_dict(parameters)) {
    if (view.rank() == 2) bound = linear_bound(view);  // a weight comes before its bias
    fill_uniform(view, bound, random);
  }
}

}  // namespace polyhead
