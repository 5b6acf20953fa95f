// The GEMM block and its packing; gemm.h says what they compute.
#include "kernels/row.body.h"

// Where kVectors vectors of neighbouring columns go, whatever the row: to out, if all of them are
// wanted and each lies side by side there; otherwise through a small tile.
template <class T, int kVectors>
struct ColumnPlaces {
  bool whole = true;
  ptrdiff_t offset[kVectors];

  POLYHEAD_INLINE ColumnPlaces(const GemmBlock<T>& block, size_t first) {
    for (size_t column = first; column < first + kVectors * kLanes<T>; column += kLanes<T>) {
      whole = whole && block.out.column_stride == 1 && column >= block.first &&
              column + kLanes<T> <= block.last &&
              (column - block.first) % block.group + kLanes<T> <= block.group;
    }
    for (int i = 0; i < kVectors; ++i) {
      const auto place = static_cast<size_t>(i * kLanes<T>);
      offset[i] = whole ? block.column_offset(first + place) : static_cast<ptrdiff_t>(place);
    }
  }
};

// The wanted columns of a tile [rows, count], one by one.
template <class T>
__attribute__((noinline)) void scatter_tile(const GemmBlock<T>& block, const T* tile, size_t row,
                                            size_t rows, size_t column, size_t count) {
  const size_t begin = column < block.first ? block.first - column : 0;
  const size_t end = column < block.last ? at_most(block.last - column, count) : 0;
  for (const size_t row_end = row + rows; row < row_end; ++row, tile += count) {
    T* out = block.out.row(row);
    for (size_t c = begin; c < end; ++c) out[block.column_offset(column + c)] = tile[c];
  }
}

// kRows rows, kVectors vectors of columns. Rows past the last repeat it, and are not stored.
// innermost kernel
template <int kRows, int kVectors, class T>
POLYHEAD_INLINE void gemm_rows(const GemmBlock<T>& block, size_t row, size_t column,
                               const ColumnPlaces<T, kVectors>& places) {
  const T* weight = block.packed + column / kPanel<T> * kPanel<T> * block.k + column % kPanel<T>;
  const T* a[kRows];
  Vec<T> acc[kRows][kVectors];
#pragma GCC unroll 8
  for (int j = 0; j < kRows; ++j) {
    a[j] = block.a.row(at_most(row + static_cast<size_t>(j), block.row_end - 1));
#pragma GCC unroll 12
    for (int i = 0; i < kVectors; ++i) acc[j][i] = Vec<T>{};
  }
  const ptrdiff_t step = block.a.column_stride;
  ptrdiff_t at = 0;
  for (size_t k = block.k; k > 0; --k, at += step, weight += kPanel<T>) {
    Vec<T> w[kVectors];
#pragma GCC unroll 12
    for (int i = 0; i < kVectors; ++i) w[i] = load(weight + i * kLanes<T>);
#pragma GCC unroll 8
    for (int j = 0; j < kRows; ++j) {
      const Vec<T> x = broadcast(a[j] + at);
#pragma GCC unroll 12
      for (int i = 0; i < kVectors; ++i) acc[j][i] = fma(x, w[i], acc[j][i]);
    }
  }
  const size_t rows = at_most(block.row_end - row, kRows);
  T tile[kRows][kVectors * kLanes<T>];
#pragma GCC unroll 8
  for (int j = 0; j < kRows; ++j) {
    if (static_cast<size_t>(j) >= rows) break;
    T* out = places.whole ? block.out.row(row + static_cast<size_t>(j)) : tile[j];
#pragma GCC unroll 12
    for (int i = 0; i < kVectors; ++i) {
      store(out + places.offset[i], acc[j][i] + load(block.bias + column + i * kLanes<T>));
    }
  }
  if (!places.whole) scatter_tile(block, tile[0], row, rows, column, kVectors * kLanes<T>);
}

// The rows of the block against a panel: kKeyTile at a time, the rest by a smaller tile; a single
// row takes the whole panel at once, for its chains are too few to hide their latency.
template <class T>
POLYHEAD_INLINE void gemm_panel(const GemmBlock<T>& block, size_t panel) {
  constexpr int kAll = static_cast<int>(kPanel<T> / kLanes<T>);
  if (block.row_end - block.row_begin == 1) {
    const ColumnPlaces<T, kAll> places(block, panel * kPanel<T>);
    return gemm_rows<1>(block, block.row_begin, panel * kPanel<T>, places);
  }
  for (size_t part = 0; part < kPanel<T>; part += 3 * kLanes<T>) {
    const size_t column = panel * kPanel<T> + part;
    const ColumnPlaces<T, 3> places(block, column);
    for (size_t row = block.row_begin; row < block.row_end; row += kKeyTile) {
      if (kKeyTile > 4 && block.row_end - row <= 4) {
        gemm_rows<4>(block, row, column, places);
      } else {
        gemm_rows<kKeyTile>(block, row, column, places);
      }
    }
  }
}

template <class T>
void run_gemm_block(const GemmBlock<T>& block) noexcept {
  for (size_t panel = block.panel_begin; panel < block.panel_end; ++panel) gemm_panel(block, panel);
}

// Squares of lanes x lanes through the registers; so many rows at a time as a CPU's prefetcher can
// follow.
template <class T>
void pack_panels(const PackBlock<T>& block) noexcept {
  constexpr size_t kN = kLanes<T>;
  for (size_t row = block.panel_begin * kPanel<T>; row < block.panel_end * kPanel<T>; row += kN) {
    T* to = block.packed + row / kPanel<T> * kPanel<T> * block.k + row % kPanel<T>;
    for (size_t k = 0; k < block.k; k += kN) {
      const size_t count = at_most(block.k - k, kN);
      const T* from = block.weight + static_cast<ptrdiff_t>(row) * block.row_stride +
                      static_cast<ptrdiff_t>(k) * block.column_stride;
      Vec<T> square[kN];
#pragma GCC unroll 16
      for (size_t r = 0; r < kN; ++r, from += block.row_stride) {
        square[r] = row + r < block.n ? load_row(from, block.column_stride, count) : Vec<T>{};
      }
      transpose(square);
#pragma GCC unroll 16
      for (size_t i = 0; i < kN; ++i) {
        if (i < count) store(to + (k + i) * kPanel<T>, square[i]);
      }
    }
  }
}

template <class T>
GemmKernel<T> make_gemm_kernel() {
  return {run_gemm_block<T>, pack_panels<T>};
}
