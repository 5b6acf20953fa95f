// The elements of all parameters in pieces that depend on nothing but the parameters, so that sums
// over pieces have one order.
#pragma once

#include <algorithm>
#include <vector>

#include <polyhead/nn/parameter.h>
#include "base/parallel_tasks.h"

namespace polyhead::nn {

struct Piece {
  size_t parameter, begin, end;
  size_t count() const { return end - begin; }
};

inline constexpr size_t kPieceOfParameter = 16384;

inline std::vector<Piece> pieces_of(const ParameterList& parameters) {
  std::vector<Piece> pieces;
  for (size_t p = 0; p < parameters.size(); ++p) {
    const auto count = static_cast<size_t>(parameters[p].value.numel());
    for (size_t i = 0; i < count; i += kPieceOfParameter) {
      pieces.push_back({p, i, std::min(count, i + kPieceOfParameter)});
    }
  }
  return pieces;
}

// body(piece's index), in parallel; cost: what an element takes in time, as flops.
template <class Body>
void for_each_parameter_piece(const std::vector<Piece>& pieces, double cost, const Body& body) {
  const double flops = cost * static_cast<double>(pieces.size() * kPieceOfParameter);
  parallel_tasks(pieces.size(), flops, 0, [&](size_t i, std::byte*) { body(i); });
}

}  // namespace polyhead::nn
