// A function of the caller's between scores and softmax, as the kernels call it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace polyhead {

// Scores of rows [first_row, first_row + rows) of a tile and keys [first_key, first_key + keys).
struct TileScores {
  void* data;
  size_t first_row, rows, first_key, keys;
  ptrdiff_t row_stride, key_stride;
};

struct TileScoreMod {
  void (*change)(const TileScoreMod& mod, const TileScores& scores);
  // d_scores [rows, keys] lie as the scores do.
  void (*differentiate)(const TileScoreMod& mod, const TileScores& scores, void* d_scores);
  bool (*is_empty)(const TileScoreMod& mod, const TileScores& block);  // null: not known
  const void* user;
  int64_t batch, head, first_query;  // of row 0
};

}  // namespace polyhead
