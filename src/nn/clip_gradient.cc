#include <cmath>
#include <vector>

#include <polyhead/nn/optimizer.h>
#include "base/float_env.h"
#include "base/float_type.h"
#include "nn/checks.h"
#include "nn/finite.h"
#include "nn/pieces.h"

namespace polyhead::nn {
namespace {

// In double, eight chains.
template <class T>
double sum_of_squares(const T* x, size_t count) {
  double sums[8] = {};
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (size_t c = 0; c < 8; ++c) {
      const auto each = static_cast<double>(x[i + c]);
      sums[c] += each * each;
    }
  }
  for (; i < count; ++i) sums[0] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  double sum = 0;
  for (const double each : sums) sum += each;
  return sum;
}

double norm_of_gradients(const ParameterList& parameters, const std::vector<Piece>& pieces) {
  std::vector<double> sums(pieces.size());
  for_each_parameter_piece(pieces, 2, [&](size_t i) {
    const Piece& piece = pieces[i];
    const TensorView& gradient = parameters[piece.parameter].gradient;
    with_float_type(gradient.dtype(), [&](auto type) {
      sums[i] = sum_of_squares(gradient.data_as<decltype(type)>() + piece.begin, piece.count());
    });
  });
  double sum = 0;
  for (const double each : sums) sum += each;
  return std::sqrt(sum);
}

}  // namespace

double clip_gradient_norm(const ParameterList& parameters, double max_norm) {
  const DefaultFloatEnv env;
  const Require require("clip_gradient_norm");
  if (!(max_norm >= 0)) require.fail("max_norm", message(max_norm), "0 or more");
  const std::vector<Piece> pieces = pieces_of(parameters);
  const double norm = norm_of_gradients(parameters, pieces);
  if (!std::isfinite(norm)) {
    require_finite(require, parameters, &Parameter::gradient, "gradient");
    require.fail("norm", "the squares overflow", "finite");
  }
  const double factor = max_norm / (norm + 1e-6);  // torch's guard against a norm of 0
  if (factor >= 1) return norm;
  for_each_parameter_piece(pieces, 1, [&](size_t i) {
    const Piece& piece = pieces[i];
    const TensorView& gradient = parameters[piece.parameter].gradient;
    with_float_type(gradient.dtype(), [&](auto type) {
      using T = decltype(type);
      T* x = gradient.data_as<T>() + piece.begin;
      for (size_t k = 0; k < piece.count(); ++k) x[k] *= static_cast<T>(factor);
    });
  });
  return norm;
}

}  // namespace polyhead::nn
