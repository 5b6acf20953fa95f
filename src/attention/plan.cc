#include "attention/plan.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include <polyhead/error.h>
#include <polyhead/runtime.h>
#include "attention/attention_reference.h"
#include "attention/group_plan.h"
#include "attention/tiled_plans.h"
#include "base/message.h"

namespace polyhead {
namespace {

bool any_call(const AttentionCall&) { return true; }

void store(const TensorView& to, int64_t offset, double x) {
  if (to.dtype() == DType::kFloat32) {
    to.data_as<float>()[offset] = static_cast<float>(x);
  } else {
    to.data_as<double>()[offset] = x;
  }
}

double lost_in_rounding(double x, DType dtype) {
  const double rest = dtype == DType::kFloat32 ? x - static_cast<double>(static_cast<float>(x)) : 0;
  return std::isnan(rest) ? 0 : rest;  // inf - inf
}

void store_row(const TensorView& to, int64_t offset, const double* row) {
  const int last = to.rank() - 1;
  for (int64_t j = 0; j < to.size(last); ++j) store(to, offset + j * to.stride(last), row[j]);
}

void store_weights(const AttentionCall& call, const Tensor& probs) {
  const TensorView& to = call.outputs.weights;
  const int64_t heads = call.num_heads(), q_len = call.q_len(), columns = probs.size(3);
  const auto* p = probs.data_as<double>();
  std::vector<double> mean(static_cast<size_t>(columns));
  for (int64_t b = 0; b < call.batch(); ++b) {
    for (int64_t i = 0; i < q_len; ++i) {
      std::fill(mean.begin(), mean.end(), 0.0);
      for (int64_t h = 0; h < heads; ++h) {
        const double* row = p + ((b * heads + h) * q_len + i) * columns;
        if (to.rank() == 4) {
          store_row(to, b * to.stride(0) + h * to.stride(1) + i * to.stride(2), row);
        }
        for (size_t j = 0; j < mean.size(); ++j) mean[j] += row[j] / static_cast<double>(heads);
      }
      if (to.rank() == 3) store_row(to, b * to.stride(0) + i * to.stride(1), mean.data());
    }
  }
}

void run_reference(const AttentionCall& call) {
  const bool weights = call.weights_mode != WeightsMode::kNone;
  const AttentionReference result = attention_forward_reference(call, {.probs = weights});
  const TensorView &out = call.outputs.out, &lse = call.outputs.lse, &rest = call.outputs.lse_rest;
  const int64_t heads = call.num_heads(), q_len = call.q_len();
  for (int64_t n = 0; n < call.batch() * heads * q_len; ++n) {
    const int64_t b = n / (heads * q_len), h = n / q_len % heads, i = n % q_len;
    store_row(out, b * out.stride(0) + h * out.stride(1) + i * out.stride(2),
              result.out.data_as<double>() + n * call.v_head_dim());
    if (lse.defined()) {
      store(lse, b * lse.stride(0) + h * lse.stride(1) + i * lse.stride(2),
            result.lse.data_as<double>()[n]);
    }
    if (rest.defined()) {
      store(rest, b * rest.stride(0) + h * rest.stride(1) + i * rest.stride(2),
            lost_in_rounding(result.lse.data_as<double>()[n], rest.dtype()));
    }
  }
  if (weights) store_weights(call, result.probs);
}

// No heads, nothing to share or to divide by.
bool all_heads(const AttentionCall& call) {
  if (call.num_heads() == 0 || !tiled_supports(call)) return false;
  return call.weights_mode == WeightsMode::kAverage || heads_share_masks(call);
}

bool per_head(const AttentionCall& call) {
  return call.weights_mode != WeightsMode::kAverage && tiled_supports(call);
}

constexpr Plan kPlans[] = {
    {"tile_of_group",
     "few queries, of heads that share keys or of more than 1024 keys: a task is a tile of all "
     "these "
     "heads, or a chunk of its keys",
     group_supports, run_tile_of_group},
    {"tile_all_heads",
     "averaged weights, or masks that all heads share: a task is a tile of queries, head after "
     "head",
     all_heads, run_tile_all_heads},
    {"tile_per_head", "all but averaged weights: a task is a tile of queries of one head", per_head,
     run_tile_per_head},
    {"reference", "any call: plain loops in double, one thread, materialised weights", any_call,
     run_reference},
};

}  // namespace

std::span<const Plan> plans() { return kPlans; }

const Plan& choose_plan(const AttentionCall& call) {
  for (const Plan& plan : kPlans) {
    const bool wanted = call.plan == nullptr || std::strcmp(call.plan, plan.name) == 0;
    if (wanted && plan.supports(call)) return plan;
  }
  throw InvalidArgument(message("attention_forward: plan: got \"", call.plan,
                                "\"; must be one that `polyhead info` lists and that supports "
                                "this call"));
}

std::vector<PlanInfo> attention_plans() {
  std::vector<PlanInfo> table;
  for (const Plan& plan : kPlans) table.push_back({plan.name, plan.when});
  return table;
}

}  // namespace polyhead
