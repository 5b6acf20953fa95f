#include <polyhead/nn/parameter.h>

#include <cstring>
#include <utility>

#include "nn/checks.h"

namespace polyhead::nn {

void ParameterList::add(const std::string& name, const TensorView& value,
                        const TensorView& gradient) {
  const Require require("ParameterList::add");
  if (name.empty()) require.fail("name", "is empty", "a name");
  require_float(require, value, (name + ": value").c_str());
  require_dense(require, value, (name + ": value").c_str());
  require_like(require, gradient, (name + ": gradient").c_str(), value);
  if (find(name) != nullptr) require.fail("name", name + " is there already", "new");
  parameters_.push_back({.name = name, .value = value, .gradient = gradient});
}

void ParameterList::on_update(std::function<void()> hook) { hooks_.push_back(std::move(hook)); }

void ParameterList::append(const std::string& prefix, const ParameterList& other) {
  for (const Parameter& each : other) {
    add(prefix + each.name, each.value, each.gradient);
    parameters_.back().decays = each.decays;
  }
  hooks_.insert(hooks_.end(), other.hooks_.begin(), other.hooks_.end());
}

void ParameterList::updated() const {
  for (const auto& hook : hooks_) hook();
}

void ParameterList::zero_gradients() const {
  for (const Parameter& each : parameters_) {
    const auto bytes =
        static_cast<size_t>(each.gradient.numel()) * dtype_bytes(each.gradient.dtype());
    std::memset(each.gradient.data(), 0, bytes);
  }
}

const Parameter* ParameterList::find(const std::string& name) const {
  for (const Parameter& each : parameters_) {
    if (each.name == name) return &each;
  }
  return nullptr;
}

ParameterList listed_parameters(const ParameterViews& values, const ParameterViews& gradients) {
  const Require require("parameters_of");
  if (gradients.size() != values.size()) {
    require.fail("gradients", message("has ", gradients.size(), " gradients"),
                 message(values.size(), ", as the state dict"));
  }
  ParameterList list;
  for (size_t i = 0; i < values.size(); ++i) {
    const std::string& name = values[i].first;
    if (gradients[i].first != name) {
      require.fail("gradients", message("gradient ", i, " is of ", gradients[i].first),
                   message("of ", name, ", as the state dict"));
    }
    list.add(name, values[i].second, gradients[i].second);
  }
  return list;
}

}  // namespace polyhead::nn
