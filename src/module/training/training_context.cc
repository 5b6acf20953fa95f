#include <polyhead/training.h>

#include "module/projected_state.h"

namespace polyhead {

TrainingContext::TrainingContext() = default;
TrainingContext::TrainingContext(TrainingContext&&) noexcept = default;
TrainingContext& TrainingContext::operator=(TrainingContext&&) noexcept = default;
TrainingContext::~TrainingContext() = default;

ParameterGradients::ParameterGradients(
    const std::vector<std::pair<std::string, ConstTensorView>>& state_dict) {
  tensors_.reserve(state_dict.size());
  views_.reserve(state_dict.size());
  for (const auto& [name, parameter] : state_dict) {
    tensors_.emplace_back(parameter.dtype(), parameter.shape());
    views_.emplace_back(name, tensors_.back().view());
  }
}

}  // namespace polyhead
