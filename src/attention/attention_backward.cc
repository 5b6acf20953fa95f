// The public backward: options -> a validated call -> a plan.
#include "attention/attention_backward.h"

#include <cstring>
#include <string>

#include <polyhead/error.h>
#include <polyhead/runtime.h>
#include "attention/attention_backward_reference.h"
#include "attention/backward/backward_plans.h"
#include "base/float_env.h"
#include "base/message.h"

namespace polyhead {
namespace {

// Row-major doubles -> the wanted gradient.
void store_gradient(const Tensor& from, const TensorView& to) {
  if (!to.defined()) return;
  const auto* numbers = from.data_as<double>();
  for (int64_t n = 0; n < to.numel(); ++n) {
    int64_t rest = n, at = 0;
    for (int dim = to.rank() - 1; dim >= 0; --dim) {
      at += rest % to.size(dim) * to.stride(dim);
      rest /= to.size(dim);
    }
    if (to.dtype() == DType::kFloat32) {
      to.data_as<float>()[at] = static_cast<float>(numbers[n]);
    } else {
      to.data_as<double>()[at] = numbers[n];
    }
  }
}

void run_reference(const BackwardCall& backward) {
  const ReferenceGradients gradients = attention_backward_reference(
      backward.call, {backward.inputs.d_out, backward.inputs.d_weights});
  store_gradient(gradients.d_query, backward.d_query);
  store_gradient(gradients.d_key, backward.d_key);
  store_gradient(gradients.d_value, backward.d_value);
  store_gradient(gradients.d_extra_key, backward.d_extra_key);
  store_gradient(gradients.d_extra_value, backward.d_extra_value);
  store_gradient(gradients.d_sinks, backward.d_sinks);
  for (size_t n = 0; n < backward.d_masks.size(); ++n) {
    store_gradient(gradients.d_masks[n], backward.d_masks[n]);
  }
}

bool any_call(const BackwardCall&) { return true; }

constexpr BackwardPlan kPlans[] = {
    {"backward_head_tasks", "a task is a batch item and the heads that share keys", head_tasks_fit,
     run_head_tasks},
    {"backward_chunk_tasks",
     "few heads for the threads: a task is 512 keys of a head, then d_query is summed",
     chunk_tasks_fit, run_chunk_tasks},
    {"backward_two_phases",
     "the sums would take over 32 MiB, or not all is wanted: tiles of queries, then of keys",
     two_phases_fit, run_two_phases},
    {"backward_reference", "any call: plain loops in double, one thread, materialised weights",
     any_call, run_reference},
};

const BackwardPlan& choose(const BackwardCall& backward) {
  const char* name = backward.call.plan;
  for (const BackwardPlan& plan : kPlans) {
    const bool wanted = name == nullptr || std::strcmp(name, plan.name) == 0;
    if (wanted && plan.fits(backward)) return plan;
  }
  throw InvalidArgument(message("attention_backward: plan: got \"", name,
                                "\"; must be one that `polyhead info` lists and that fits this "
                                "call"));
}

}  // namespace

std::span<const BackwardPlan> backward_plans() { return kPlans; }

std::vector<PlanInfo> attention_backward_plans() {
  std::vector<PlanInfo> table;
  for (const BackwardPlan& plan : kPlans) table.push_back({plan.name, plan.when});
  return table;
}

void run_attention_backward(const BackwardCall& backward) {
  DefaultFloatEnv env;
  choose(backward).run(backward);
}

void attention_backward(const ConstTensorView& query, const ConstTensorView& key,
                        const ConstTensorView& value, const AttentionOptions& options,
                        const AttentionBackwardInputs& inputs,
                        const AttentionGradients& gradients) {
  DefaultFloatEnv env;  // before the default scale is computed
  BackwardCall backward{.call = call_of(query, key, value, options)};
  backward.inputs = inputs;
  backward.d_query = gradients.d_query;
  backward.d_key = gradients.d_key;
  backward.d_value = gradients.d_value;
  backward.d_masks = gradients.d_masks;
  backward.d_sinks = gradients.d_sinks;
  validate(backward, "attention_backward");
  if (options.score_mod.forward != nullptr && options.score_mod.backward == nullptr) {
    throw Unsupported("attention_backward: score_mod.backward: not given; needed for gradients");
  }
  run_attention_backward(backward);
}

}  // namespace polyhead
