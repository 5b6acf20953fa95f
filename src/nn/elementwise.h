// Work on elements one by one, shared out in pieces.
#pragma once

#include <algorithm>
#include <cstddef>

#include <polyhead/tensor_view.h>
#include "base/float_type.h"
#include "base/parallel_tasks.h"
#include "nn/checks.h"

namespace polyhead::nn {

inline constexpr size_t kPieceElements = 8192;  // 32 KiB of float32: half of a first cache

// body(begin, end) for the pieces of [0, count). cost: what an element takes in time, as flops.
template <class Body>
void for_each_piece(size_t count, double cost, const Body& body) {
  const size_t pieces = (count + kPieceElements - 1) / kPieceElements;
  parallel_tasks(pieces, cost * static_cast<double>(count), 0, [&](size_t piece, std::byte*) {
    body(piece * kPieceElements, std::min(count, (piece + 1) * kPieceElements));
  });
}

// map(x, count, y) makes count elements of y, float or double; y may be x.
template <class Map>
void map_into(const char* function, const ConstTensorView& x, const TensorView& y, double cost,
              const Map& map) {
  const Require require(function);
  require_float(require, x, "x");
  require_dense(require, x, "x");
  require_like(require, y, "y", x);
  with_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    const T* from = x.data_as<T>();
    T* to = y.data_as<T>();
    for_each_piece(static_cast<size_t>(x.numel()), cost,
                   [&](size_t i, size_t end) { map(from + i, end - i, to + i); });
  });
}

// map(x, d_y, count, d_x) makes count elements of d_x, float or double; d_x may be d_y.
template <class Map>
void map_backward(const char* function, const ConstTensorView& x, const ConstTensorView& d_y,
                  const TensorView& d_x, double cost, const Map& map) {
  const Require require(function);
  require_float(require, x, "x");
  require_dense(require, x, "x");
  require_like(require, d_y, "d_y", x);
  require_like(require, d_x, "d_x", x);
  with_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    const T *at = x.data_as<T>(), *from = d_y.data_as<T>();
    T* to = d_x.data_as<T>();
    for_each_piece(static_cast<size_t>(x.numel()), cost,
                   [&](size_t i, size_t end) { map(at + i, from + i, end - i, to + i); });
  });
}

}  // namespace polyhead::nn
