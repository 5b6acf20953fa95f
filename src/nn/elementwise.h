// Work on elements one by one, shared out in pieces.
#pragma once

#include <algorithm>
#include <cstddef>

#include "base/parallel_tasks.h"

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

}  // namespace polyhead::nn
