// loss of a token = log(sum exp(x - max)) + max - x[target]
// d_logits = (softmax - [class is the target]) / tokens that count
#include <algorithm>
#include <vector>

#include <polyhead/nn/functions.h>
#include "base/float_env.h"
#include "base/float_type.h"
#include "base/natural_log.h"
#include "base/parallel_tasks.h"
#include "nn/checks.h"
#include "nn/region.h"
#include "nn/softmax.h"
#include "simd/regions.h"

#define POLYHEAD_KERNEL_BODY "nn/softmax.body.h"
#include "simd/for_each_isa.h"

namespace polyhead::nn {
namespace {

constexpr double kFlopsPerElement = 15;

template <class T>
struct CrossEntropy {
  const T* logits;  // [tokens, classes]
  T* d_logits;      // [tokens, classes] or null
  const int64_t* targets;
  size_t classes;
  int64_t ignore_index;
  double weight;  // 1 / tokens that count, +inf if none does
  SoftmaxKernel<T> kernel = POLYHEAD_ON_ISA(isa_in_use(), make_softmax_kernel<T>());

  // The token's loss, 0 if it does not count.
  double run(size_t token) const {
    const T* x = logits + token * classes;
    T* d = d_logits ? d_logits + token * classes : nullptr;
    if (targets[token] == ignore_index) {
      if (d) std::fill_n(d, classes, T{0});
      return 0;
    }
    const auto target = static_cast<size_t>(targets[token]);
    const auto at_target = static_cast<double>(x[target]);
    const SoftmaxSum<T> of = kernel.exps(x, classes, d);
    const auto sum = static_cast<double>(of.sum);
    if (d) {
      kernel.scale(d, classes, static_cast<T>(weight / sum));
      d[target] -= static_cast<T>(weight);
    }
    return natural_log(sum) + (static_cast<double>(of.max) - at_target);
  }
};

// How many tokens count.
int64_t check_targets(const Require& require, const ConstTensorView& logits,
                      const ConstTensorView& targets, int64_t ignore_index) {
  require_dense(require, targets, "targets");
  require_dtype(require, targets, "targets", DType::kInt64);
  require.shape(targets, "targets", logits.shape().first(logits.shape().size() - 1));
  const int64_t classes = logits.size(logits.rank() - 1);
  const auto* target = targets.data_as<int64_t>();
  int64_t counted = 0;
  for (int64_t i = 0; i < targets.numel(); ++i) {
    if (target[i] == ignore_index) continue;
    ++counted;
    if (target[i] >= 0 && target[i] < classes) continue;
    require.fail("targets", message("element ", i, " is ", target[i]),
                 message("in [0, ", classes, "), or ", ignore_index, " (ignore_index)"));
  }
  return counted;
}

// The mean, tokens in order; 0 * inf = NaN if none counts.
template <class T>
double run_tokens(const CrossEntropy<T>& of, size_t tokens) {
  std::vector<double> losses(tokens);
  const auto elements = static_cast<double>(tokens * of.classes);
  parallel_tasks(tokens, kFlopsPerElement * elements, 0,
                 [&](size_t token, std::byte*) { losses[token] = of.run(token); });
  double sum = 0;
  for (const double loss : losses) sum += loss;
  return sum * of.weight;
}

}  // namespace

double cross_entropy(const ConstTensorView& logits, const ConstTensorView& targets,
                     const TensorView& d_logits, int64_t ignore_index) {
  const DefaultFloatEnv env;
  const Require require("cross_entropy");
  const Rows rows(require, logits, "logits");
  if (d_logits.defined()) require_like(require, d_logits, "d_logits", logits);
  const int64_t counted = check_targets(require, logits, targets, ignore_index);
  double mean = 0;
  with_float_type(logits.dtype(), [&](auto type) {
    using T = decltype(type);
    const CrossEntropy<T> of{.logits = logits.data_as<T>(),
                             .d_logits = d_logits.defined() ? d_logits.data_as<T>() : nullptr,
                             .targets = targets.data_as<int64_t>(),
                             .classes = rows.width,
                             .ignore_index = ignore_index,
                             .weight = 1 / static_cast<double>(counted)};
    mean = run_tokens(of, static_cast<size_t>(targets.numel()));
  });
  return mean;
}

}  // namespace polyhead::nn
