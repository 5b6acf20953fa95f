#include "module/initialise.h"

#include <cmath>

#include "base/float_env.h"
#include "base/float_type.h"
#include "base/random.h"

namespace polyhead {
namespace {

void fill_uniform(const TensorView& tensor, double bound, Random& random) {
  fill_floats(tensor, [&] { return bound * (2 * random.uniform() - 1); });
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
  fill_floats(tensor, [&] { return deviation * random.normal(); });
}

}  // namespace

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
  for (Tensor* norm : {&parameters.q_norm_weight, &parameters.k_norm_weight}) {
    if (norm->defined()) fill_floats(*norm, [] { return 1.0; });
  }
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
