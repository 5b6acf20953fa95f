// Trained tensors by name: what optimisers, gradient clipping and checkpoints walk over.
//
//   nn::ParameterList all;
//   all.append("tokens.", tokens.parameters());
//   all.append("head.", head.parameters());
//   for (nn::Parameter& each : all) each.decays = each.value.rank() > 1;
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include <polyhead/tensor_view.h>
#include <polyhead/training.h>

#pragma GCC visibility push(default)
namespace polyhead::nn {

// Views of memory that a layer owns, and that must outlive the list. Moving the layer is fine.
struct Parameter {
  std::string name;
  TensorView value, gradient;
  bool decays = true;  // whether AdamW's weight decay applies
};

class ParameterList {
 public:
  // value and gradient: one shape, float32 or float64, row-major without gaps. Throws
  // InvalidArgument if they are not, or if the name is empty or in the list already.
  void add(const std::string& name, const TensorView& value, const TensorView& gradient);
  // Called by updated(): where a layer keeps something made of its values (packed weights), it
  // makes it anew.
  void on_update(std::function<void()> hook);
  // All of `other`, its hooks included, under prefix + name.
  void append(const std::string& prefix, const ParameterList& other);

  // To be called by whoever has written to values.
  void updated() const;
  void zero_gradients() const;

  const Parameter* find(const std::string& name) const;  // null if absent
  size_t size() const { return parameters_.size(); }
  Parameter& operator[](size_t i) { return parameters_[i]; }
  const Parameter& operator[](size_t i) const { return parameters_[i]; }
  std::vector<Parameter>::iterator begin() { return parameters_.begin(); }
  std::vector<Parameter>::iterator end() { return parameters_.end(); }
  std::vector<Parameter>::const_iterator begin() const { return parameters_.begin(); }
  std::vector<Parameter>::const_iterator end() const { return parameters_.end(); }

 private:
  std::vector<Parameter> parameters_;
  std::vector<std::function<void()>> hooks_;
};

// The list that parameters_of makes, but for its hook.
ParameterList listed_parameters(const ParameterViews& values, const ParameterViews& gradients);

// The parameters of an attention module (MultiheadAttention or FromScratchMultiHeadAttention),
// which updated() repacks; here the module must stay where it is. `gradients` are what its backward
// is given: ParameterGradients(module.state_dict()). Throws InvalidArgument for another module's.
template <class Module>
ParameterList parameters_of(Module& module, const ParameterGradients& gradients) {
  ParameterList list = listed_parameters(module.parameters(), gradients.views());
  list.on_update([&module] { module.repack(); });
  return list;
}

}  // namespace polyhead::nn
#pragma GCC visibility pop
