#include <cmath>
#include <limits>
#include <utility>

#include <polyhead/nn/optimizer.h>
#include "base/float_env.h"
#include "base/float_type.h"
#include "nn/checks.h"
#include "nn/finite.h"
#include "nn/pieces.h"

namespace polyhead::nn {
namespace {

constexpr double kCost = 20;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

void check_options(const Require& require, const AdamWOptions& options) {
  const auto at_least_0 = [&](double x, const char* name) {
    if (!(x >= 0) || std::isinf(x)) require.fail(name, message(x), "finite and 0 or more");
  };
  at_least_0(options.learning_rate, "learning_rate");
  at_least_0(options.epsilon, "epsilon");
  at_least_0(options.weight_decay, "weight_decay");
  for (const auto& [beta, name] : {std::pair(options.beta1, "beta1"), {options.beta2, "beta2"}}) {
    if (!(beta >= 0 && beta < 1)) require.fail(name, message(beta), "in [0, 1)");
  }
}

// By squaring: no pow of a C library, and nothing to keep from step to step.
double power(double x, int64_t n) {
  double result = 1;
  for (; n > 0; n /= 2, x *= x) {
    if (n % 2 == 1) result *= x;
  }
  return result;
}

// What every element of a step has in common, in the type it is computed in.
template <class T>
struct Step {
  T keep;     // 1 - learning_rate * weight_decay
  T to_mean;  // 1 - beta1
  T beta2, to_square;
  T mean_factor;    // learning_rate / (1 - beta1^steps)
  T square_factor;  // 1 / sqrt(1 - beta2^steps)
  T epsilon;

  Step(const AdamWOptions& options, int64_t steps, bool decays)
      : keep(static_cast<T>(decays ? 1 - options.learning_rate * options.weight_decay : 1)),
        to_mean(static_cast<T>(1 - options.beta1)),
        beta2(static_cast<T>(options.beta2)),
        to_square(static_cast<T>(1 - options.beta2)),
        mean_factor(static_cast<T>(options.learning_rate / (1 - power(options.beta1, steps)))),
        square_factor(static_cast<T>(1 / std::sqrt(1 - power(options.beta2, steps)))),
        epsilon(static_cast<T>(options.epsilon)) {}

  void run(const T* gradient, T* mean, T* square, T* value, size_t count) const {
    for (size_t i = 0; i < count; ++i) {
      const T g = gradient[i];
      mean[i] += to_mean * (g - mean[i]);
      square[i] = beta2 * square[i] + to_square * (g * g);
      const T divisor = std::sqrt(square[i]) * square_factor + epsilon;
      value[i] = keep * value[i] - mean_factor * (mean[i] / divisor);
    }
  }
};

// `least`: below it no moment can be.
void check_moment(const Require& require, const Parameter& parameter, const Tensor& tensor,
                  const char* what, double least) {
  const std::string name = message(what, " of ", parameter.name);
  require_like(require, tensor, name.c_str(), parameter.value);
  const std::string got = not_finite_text(tensor);
  if (!got.empty()) require.fail(name, got, "finite");
  with_float_type(tensor.dtype(), [&](auto type) {
    const auto* x = tensor.data_as<decltype(type)>();
    for (int64_t i = 0; i < tensor.numel(); ++i) {
      if (static_cast<double>(x[i]) >= least) continue;
      require.fail(name, message("element ", i, " is ", x[i]), message(least, " or more"));
    }
  });
}

}  // namespace

AdamW::AdamW(const ParameterList& parameters, const AdamWOptions& options)
    : parameters_(parameters) {
  set_options(options);
  for (const Parameter& each : parameters_) {
    moments_.push_back({.mean = Tensor(each.value.dtype(), each.value.shape()),
                        .square = Tensor(each.value.dtype(), each.value.shape())});
  }
}

void AdamW::set_options(const AdamWOptions& options) {
  check_options(Require("AdamW"), options);
  options_ = options;
}

void AdamW::step() {
  const DefaultFloatEnv env;
  require_finite(Require("AdamW::step"), parameters_, &Parameter::gradient, "gradient", Square());
  const std::vector<Piece> pieces = pieces_of(parameters_);
  ++steps_;
  for_each_parameter_piece(pieces, kCost, [&](size_t i) {
    const Piece& piece = pieces[i];
    const Parameter& parameter = parameters_[piece.parameter];
    Moments& moments = moments_[piece.parameter];
    with_float_type(parameter.value.dtype(), [&](auto type) {
      using T = decltype(type);
      const Step<T> step(options_, steps_, parameter.decays);
      step.run(parameter.gradient.data_as<T>() + piece.begin,
               moments.mean.data_as<T>() + piece.begin, moments.square.data_as<T>() + piece.begin,
               parameter.value.data_as<T>() + piece.begin, piece.count());
    });
  });
  parameters_.updated();
}

void AdamW::restore(int64_t steps, std::vector<Moments> moments, const AdamWOptions& options) {
  const Require require("AdamW::restore");
  check_options(require, options);
  if (steps < 0) require.fail("steps", message(steps), "0 or more");
  if (moments.size() != parameters_.size()) {
    require.fail("moments", message("of ", moments.size(), " parameters"),
                 message(parameters_.size()));
  }
  for (size_t i = 0; i < moments.size(); ++i) {
    check_moment(require, parameters_[i], moments[i].mean, "mean", -kInfinity);
    check_moment(require, parameters_[i], moments[i].square, "square", 0);
  }
  options_ = options;
  steps_ = steps;
  moments_ = std::move(moments);
}

}  // namespace polyhead::nn
