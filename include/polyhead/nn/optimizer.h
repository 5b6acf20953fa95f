// AdamW and gradient clipping, as torch defines them.
//
//   nn::AdamW optimizer(all_parameters, {.learning_rate = 3e-4});
//   ...                                                    // forwards, loss, backwards
//   nn::clip_gradient_norm(optimizer.parameters(), 1.0);
//   optimizer.step();
#pragma once

#include <cstdint>
#include <vector>

#include <polyhead/nn/parameter.h>
#include <polyhead/tensor_view.h>

#pragma GCC visibility push(default)
namespace polyhead::nn {

struct AdamWOptions {
  double learning_rate = 1e-3;
  double beta1 = 0.9, beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 1e-2;  // of the parameters that decay
};

// value -= learning_rate * weight_decay * value
// mean = beta1 * mean + (1 - beta1) * gradient;  square = beta2 * square + (1 - beta2) * gradient^2
// value -= learning_rate * mean' / (sqrt(square') + epsilon), each ' divided by 1 - beta^steps
class AdamW {
 public:
  // Running means of one parameter's gradient and of its square, in the parameter's shape.
  struct Moments {
    Tensor mean, square;
  };

  // The parameters' memory must outlive the optimiser.
  explicit AdamW(const ParameterList& parameters, const AdamWOptions& options = {});

  // Reads the gradients, writes the values, calls updated(). Throws InvalidArgument, with nothing
  // changed, if a gradient has NaN or infinity in it or a number whose square overflows, naming the
  // first.
  void step();

  const ParameterList& parameters() const { return parameters_; }
  const AdamWOptions& options() const { return options_; }
  void set_options(const AdamWOptions& options);  // from the next step on: schedules of the rate
  int64_t steps() const { return steps_; }
  const std::vector<Moments>& moments() const { return moments_; }
  // Goes on where another optimiser of the same parameters stopped; but for their values. Throws
  // InvalidArgument, with nothing changed, for moments that no optimiser comes to.
  void restore(int64_t steps, std::vector<Moments> moments, const AdamWOptions& options);

 private:
  ParameterList parameters_;
  AdamWOptions options_;
  int64_t steps_ = 0;
  std::vector<Moments> moments_;  // one for each parameter
};

// The Euclidean norm of all gradients together; if it is above max_norm, they are multiplied by
// max_norm / (norm + 1e-6). Throws InvalidArgument, with nothing changed, if a gradient has NaN or
// infinity in it, naming the first.
double clip_gradient_norm(const ParameterList& parameters, double max_norm);

}  // namespace polyhead::nn
#pragma GCC visibility pop
