// NaN and infinity in parameters and gradients.
#pragma once

#include <atomic>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "base/float_type.h"
#include "nn/checks.h"
#include "nn/pieces.h"

namespace polyhead::nn {

// What of each element is to be finite.
struct Itself {
  template <class T>
  T operator()(T x) const {
    return x;
  }
};
struct Square {
  template <class T>
  T operator()(T x) const {
    return x * x;
  }
};

// Eight sums of 0 * x, which stay 0 as long as all x are finite.
template <class T, class Of>
bool all_finite(const T* x, size_t count, const Of& of) {
  T zeros[8] = {};
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (size_t c = 0; c < 8; ++c) zeros[c] += of(x[i + c]) * T{0};
  }
  for (; i < count; ++i) zeros[0] += of(x[i]) * T{0};
  T sum = 0;
  for (const T zero : zeros) sum += zero;
  return sum == T{0};
}

// "element 5 is nan" of the first that is not finite; empty if all are.
template <class Of = Itself>
std::string not_finite_text(const ConstTensorView& tensor, const Of& of = {}) {
  std::string text;
  with_float_type(tensor.dtype(), [&](auto type) {
    using T = decltype(type);
    const T* x = tensor.data_as<T>();
    if (all_finite(x, static_cast<size_t>(tensor.numel()), of)) return;
    int64_t i = 0;
    while (std::isfinite(of(x[i]))) ++i;
    text = std::isnan(x[i])   ? message("element ", i, " is nan")
           : std::isinf(x[i]) ? message("element ", i, " is infinite")
                              : message("element ", i, " is ", x[i], ", its square infinite");
  });
  return text;
}

// Throws for the first element of `part` (value or gradient) that is not finite.
template <class Of = Itself>
void require_finite(const Require& require, const ParameterList& parameters,
                    TensorView Parameter::* part, const char* what, const Of& of = {}) {
  const std::vector<Piece> pieces = pieces_of(parameters);
  std::atomic<bool> finite{true};
  for_each_parameter_piece(pieces, 1, [&](size_t i) {
    const Piece& piece = pieces[i];
    const TensorView& tensor = parameters[piece.parameter].*part;
    with_float_type(tensor.dtype(), [&](auto type) {
      if (!all_finite(tensor.data_as<decltype(type)>() + piece.begin, piece.count(), of)) {
        finite = false;
      }
    });
  });
  for (size_t p = 0; !finite && p < parameters.size(); ++p) {
    const std::string got = not_finite_text(parameters[p].*part, of);
    if (!got.empty()) require.fail(message(what, " of ", parameters[p].name), got, "finite");
  }
}

}  // namespace polyhead::nn
