#include "explain_parameters.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/message.h"
#include "numbers.h"
#include "trace.h"

namespace polyhead::cli {
namespace {

ConstTensorView find(const StateDict& parameters, const std::vector<std::string>& names) {
  for (const auto& [name, view] : parameters) {
    if (std::find(names.begin(), names.end(), name) != names.end()) return view;
  }
  return {};
}

// The weight or bias of q, k or v: a third of the packed one, or by itself.
ConstTensorView in_projection(const StateDict& parameters, int64_t part, const char* what) {
  const ConstTensorView packed = find(parameters, {message("in_proj_", what)});
  if (packed.defined()) {
    return packed.narrow(0, part * (packed.size(0) / 3), packed.size(0) / 3);
  }
  const char letter = "qkv"[part];
  return find(parameters, {message(letter, "_proj_", what), message(letter, "_linear.", what)});
}

void add(const std::string& name, const ConstTensorView& view, std::vector<ExplainMatrix>& to) {
  if (!view.defined()) return;
  to.push_back({name, {view.shape().begin(), view.shape().end()}, numbers_of(view)});
}

}  // namespace

int64_t parameter_count(const Job& job) {
  int64_t count = 0;
  for (const auto& [name, view] : state_dict_of(job)) count += view.numel();
  return count;
}

std::vector<ExplainMatrix> explain_parameters(const Job& job) {
  const StateDict parameters = state_dict_of(job);
  std::vector<ExplainMatrix> matrices;
  for (int64_t part = 0; part < 3; ++part) {
    add(message("w_", "qkv"[part]), in_projection(parameters, part, "weight"), matrices);
    add(message("b_", "qkv"[part]), in_projection(parameters, part, "bias"), matrices);
  }
  add("w_o", find(parameters, {"out_proj.weight", "fc_out.weight"}), matrices);
  add("b_o", find(parameters, {"out_proj.bias", "fc_out.bias"}), matrices);
  return matrices;
}

}  // namespace polyhead::cli
