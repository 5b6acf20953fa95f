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

// Eight sums of 0 * x, which stay 0 as long as all x are finite.
template <class T>
bool all_finite(const T* x, size_t count) {
  T zeros[8] = {};
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    for (size_t c = 0; c < 8; ++c) zeros[c] += x[i + c] * T{0};
  }
  for (; i < count; ++i) zeros[0] += x[i] * T{0};
  T sum = 0;
  for (const T zero : zeros) sum += zero;
  return sum == T{0};
}

template <class T>
void fail_at_first(const Require& require, const TensorView& tensor, const std::string& name) {
  const T* x = tensor.data_as<T>();
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    if (std::isfinite(x[i])) continue;
    require.fail(name, message("element ", i, " is ", std::isnan(x[i]) ? "nan" : "infinite"),
                 "finite");
  }
}

// Throws for the first element of `part` (value or gradient) that is not finite.
inline void require_finite(const Require& require, const ParameterList& parameters,
                           TensorView Parameter::* part, const char* what) {
  const std::vector<Piece> pieces = pieces_of(parameters);
  std::atomic<bool> finite{true};
  for_each_parameter_piece(pieces, 1, [&](size_t i) {
    const Piece& piece = pieces[i];
    const TensorView& tensor = parameters[piece.parameter].*part;
    with_float_type(tensor.dtype(), [&](auto type) {
      if (!all_finite(tensor.data_as<decltype(type)>() + piece.begin, piece.count()))
        finite = false;
    });
  });
  for (size_t p = 0; !finite && p < parameters.size(); ++p) {
    const TensorView& tensor = parameters[p].*part;
    with_float_type(tensor.dtype(), [&](auto type) {
      fail_at_first<decltype(type)>(require, tensor, message(what, " of ", parameters[p].name));
    });
  }
}

}  // namespace polyhead::nn
