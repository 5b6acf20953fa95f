// The GEMM block and its packing; gemm.h says what they compute.
#include "kernels/row.body.h"

// Where kVectors vectors of neighbouring columns go, whatever the row: to out, if all of them are
// wanted and each lies side by side there; otherwise through a small tile.
template <class T, int kVectors>
struct ColumnPlaces {
  bool whole = true;
  ptrdiff_t offset[kVectors];

  POLYHEAD_INLINE ColumnPlaces(const GemmBlock<T>& block, size_t first) {
    const Axis& columns = block.out.columns;
    for (size_t column = first; column < first + kVectors * kLanes<T>; column += kLanes<T>) {
      whole = whole && columns.step == 1 && column >= block.first &&
              column + kLanes<T> <= block.last &&
              (column - block.first) % columns.inner + kLanes<T> <= columns.inner;
    }
    for (int i = 0; i < kVectors; ++i) {
      const auto place = static_cast<size_t>(i * kLanes<T>);
      offset[i] = whole ? columns(first - block.first + place) : static_cast<ptrdiff_t>(place);
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
    for (size_t c = begin; c < end; ++c) {
      T* to = out + block.out.columns(column + c - block.first);
      *to = block.add ? *to + tile[c] : tile[c];
    }
  }
}

template <class T>
POLYHEAD_INLINE T* parked_row(const GemmBlock<T>& block, size_t row, size_t column) {
  return block.parked + (column / kPanel<T> * block.parked_rows + row) * kPanel<T> +
         column % kPanel<T>;
}

// The chains of a tile between two passes over k, row by row: from where they are parked, and back.
template <int kRows, int kVectors, class T>
POLYHEAD_INLINE void resume_chains(const GemmBlock<T>& block, size_t row, size_t column,
                                   Vec<T> (&acc)[kRows][kVectors]) {
#pragma GCC unroll 8
  for (int j = 0; j < kRows; ++j) {
    const size_t last = block.row_end - 1;
    const T* from = parked_row(block, at_most(row + static_cast<size_t>(j), last), column);
#pragma GCC unroll 12
    for (int i = 0; i < kVectors; ++i) acc[j][i] = load(from + i * kLanes<T>);
  }
}
template <int kRows, int kVectors, class T>
POLYHEAD_INLINE void park_chains(const GemmBlock<T>& block, size_t row, size_t column,
                                 const Vec<T> (&acc)[kRows][kVectors]) {
#pragma GCC unroll 8
  for (int j = 0; j < kRows; ++j) {
    if (row + static_cast<size_t>(j) >= block.row_end) break;
    T* to = parked_row(block, row + static_cast<size_t>(j), column);
#pragma GCC unroll 12
    for (int i = 0; i < kVectors; ++i) store(to + i * kLanes<T>, acc[j][i]);
  }
}

// Chains that have ended: the bias is added, then all of it to what out holds, if it is to be.
template <int kRows, int kVectors, class T>
POLYHEAD_INLINE void store_chains(const GemmBlock<T>& block, size_t row, size_t column,
                                  const ColumnPlaces<T, kVectors>& places,
                                  Vec<T> (&acc)[kRows][kVectors]) {
  const size_t rows = at_most(block.row_end - row, kRows);
  T tile[kRows][kVectors * kLanes<T>];
#pragma GCC unroll 8
  for (int j = 0; j < kRows; ++j) {
    if (static_cast<size_t>(j) >= rows) break;
    T* out = places.whole ? block.out.row(row + static_cast<size_t>(j)) : tile[j];
#pragma GCC unroll 12
    for (int i = 0; i < kVectors; ++i) {
      T* to = out + places.offset[i];
      if (block.bias) acc[j][i] += load(block.bias + column + i * kLanes<T>);
      if (block.add && places.whole) acc[j][i] += load(to);
      store(to, acc[j][i]);
    }
  }
  if (!places.whole) scatter_tile(block, tile[0], row, rows, column, kVectors * kLanes<T>);
}

// Asks for the memory that the chains will be stored to while they run: with `add`, or lines of out
// in no cache, the stores would wait for it.
template <int kRows, int kVectors, class T>
POLYHEAD_INLINE void prefetch_out(const GemmBlock<T>& block, size_t row,
                                  const ColumnPlaces<T, kVectors>& places) {
#pragma GCC unroll 8
  for (int j = 0; j < kRows; ++j) {
    const T* out = block.out.row(at_most(row + static_cast<size_t>(j), block.row_end - 1));
#pragma GCC unroll 12
    for (int i = 0; i < kVectors; ++i) __builtin_prefetch(out + places.offset[i], 1);
  }
}

// kRows rows, kVectors vectors of columns. Rows past the last repeat it, and are not stored.
// innermost kernel
template <int kRows, int kVectors, class T>
POLYHEAD_INLINE void gemm_rows(const GemmBlock<T>& block, size_t row, size_t column,
                               const ColumnPlaces<T, kVectors>& places) {
  const T* weight =
      block.packed + column / kPanel<T> * kPanel<T> * block.packed_rows + column % kPanel<T>;
  const T* a[kRows];
  Vec<T> acc[kRows][kVectors];
#pragma GCC unroll 8
  for (int j = 0; j < kRows; ++j) {
    a[j] = block.a.row(at_most(row + static_cast<size_t>(j), block.row_end - 1));
#pragma GCC unroll 12
    for (int i = 0; i < kVectors; ++i) acc[j][i] = Vec<T>{};
  }
  if (!block.begins) resume_chains(block, row, column, acc);
  if (block.ends && places.whole) prefetch_out<kRows>(block, row, places);
  const Axis& columns = block.a.columns;
  ptrdiff_t begin = 0;
  for (size_t left = block.k; left > 0; begin += columns.outer) {
    const size_t count = at_most(left, columns.inner);
    ptrdiff_t at = begin;
    for (size_t k = count; k > 0; --k, at += columns.step, weight += kPanel<T>) {
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
    left -= count;
  }
  if (!block.ends) return park_chains(block, row, column, acc);
  store_chains(block, row, column, places, acc);
}

// The rows of the block against a panel: kKeyTile at a time, the rest by a smaller tile; a single
// row takes the whole panel at once, for its chains are too few to hide their latency. Columns past
// the last one wanted are left out vector by vector.
template <class T>
POLYHEAD_INLINE void gemm_panel(const GemmBlock<T>& block, size_t panel) {
  constexpr int kAll = static_cast<int>(kPanel<T> / kLanes<T>);
  const size_t begin = panel * kPanel<T>, end = at_most(begin + kPanel<T>, block.last);
  if (block.row_end - block.row_begin == 1) {
    const ColumnPlaces<T, kAll> places(block, begin);
    return gemm_rows<1>(block, block.row_begin, begin, places);
  }
  size_t column = begin;
  for (; column + 2 * kLanes<T> < end; column += 3 * kLanes<T>) {
    const ColumnPlaces<T, 3> places(block, column);
    for (size_t row = block.row_begin; row < block.row_end; row += kKeyTile) {
      if (kKeyTile > 4 && block.row_end - row <= 4) {
        gemm_rows<4>(block, row, column, places);
      } else {
        gemm_rows<kKeyTile>(block, row, column, places);
      }
    }
  }
  for (; column < end; column += kLanes<T>) {
    const ColumnPlaces<T, 1> places(block, column);
    for (size_t row = block.row_begin; row < block.row_end; row += 8) {
      gemm_rows<8>(block, row, column, places);
    }
  }
}

template <class T>
void run_gemm_block(const GemmBlock<T>& block) noexcept {
  for (size_t panel = block.panel_begin; panel < block.panel_end; ++panel) gemm_panel(block, panel);
}

// A vector of rows of weight, columns [k, k + count) that lie evenly: squares of lanes x lanes
// through the registers; so many rows at a time as a CPU's prefetcher can follow.
template <class T>
POLYHEAD_INLINE void pack_squares(const PackBlock<T>& block, size_t row, size_t k, size_t count) {
  constexpr size_t kN = kLanes<T>;
  const Axis& columns = block.weight.columns;
  T* to = block.packed + (row / kPanel<T> * block.packed_rows + k) * kPanel<T> + row % kPanel<T>;
  const T* from[kN];
  for (size_t r = 0; r < kN; ++r) {
    from[r] = block.weight.row(at_most(row + r, block.n - 1)) + columns(block.first_k + k);
  }
  for (size_t done = 0; done < count; done += kN, to += kN * kPanel<T>) {
    const size_t width = at_most(count - done, kN);
    const ptrdiff_t at = static_cast<ptrdiff_t>(done) * columns.step;
    Vec<T> square[kN];
#pragma GCC unroll 16
    for (size_t r = 0; r < kN; ++r) {
      square[r] = row + r < block.n ? load_row(from[r] + at, columns.step, width) : Vec<T>{};
    }
    transpose(square);
#pragma GCC unroll 16
    for (size_t i = 0; i < kN; ++i) {
      if (i < width) store(to + i * kPanel<T>, square[i]);
    }
  }
}

// The same where rows lie side by side in memory: there is nothing to transpose.
template <class T>
POLYHEAD_INLINE void pack_copies(const PackBlock<T>& block, size_t row, size_t k, size_t count) {
  constexpr size_t kN = kLanes<T>;
  const Axis &rows = block.weight.rows, &columns = block.weight.columns;
  T* to = block.packed + (row / kPanel<T> * block.packed_rows + k) * kPanel<T> + row % kPanel<T>;
  const size_t width = row < block.n ? at_most(block.n - row, kN) : 0;
  const T* from = block.weight.data + columns(block.first_k + k);
  if (width == kN && row % rows.inner + kN <= rows.inner) {
    from += rows(row);
    for (; count > 0; --count, from += columns.step, to += kPanel<T>) store(to, load(from));
    return;
  }
  for (; count > 0; --count, from += columns.step, to += kPanel<T>) {
    for (size_t r = 0; r < kN; ++r) to[r] = r < width ? from[rows(row + r)] : T{0};
  }
}

// How many panels from `panel` on lie side by side as a whole.
template <class T>
POLYHEAD_INLINE size_t whole_panels(const PackBlock<T>& block, size_t panel) {
  const size_t row = panel * kPanel<T>, inner = block.weight.rows.inner;
  const size_t rows = row < block.n ? at_most(block.n - row, inner - row % inner) : 0;
  return at_most(rows / kPanel<T>, block.panel_end - panel);
}

// The same for `count` such panels: column by column over all of them.
template <class T>
POLYHEAD_INLINE void pack_whole_panels(const PackBlock<T>& block, size_t panel, size_t count,
                                       size_t k, size_t k_count) {
  constexpr size_t kN = kLanes<T>;
  const Axis& columns = block.weight.columns;
  const T* from = block.weight.row(panel * kPanel<T>) + columns(block.first_k + k);
  T* to = block.packed + (panel * block.packed_rows + k) * kPanel<T>;
  for (; k_count > 0; --k_count, from += columns.step, to += kPanel<T>) {
    const T* row = from;
    for (size_t p = 0; p < count; ++p, row += kPanel<T>) {
      T* panel_row = to + p * block.packed_rows * kPanel<T>;
#pragma GCC unroll 12
      for (size_t i = 0; i < kPanel<T>; i += kN) store(panel_row + i, load(row + i));
    }
  }
}

template <class T>
void pack_panels(const PackBlock<T>& block) noexcept {
  const Axis &rows = block.weight.rows, &columns = block.weight.columns;
  const bool copies = rows.step == 1 && columns.step != 1;
  for (size_t k = 0, count; k < block.k; k += count) {
    count = at_most(block.k - k, columns.inner - (block.first_k + k) % columns.inner);
    for (size_t panel = block.panel_begin; panel < block.panel_end;) {
      const size_t whole = copies ? whole_panels(block, panel) : 0;
      if (whole > 0) {
        pack_whole_panels(block, panel, whole, k, count);
        panel += whole;
        continue;
      }
      for (size_t row = panel * kPanel<T>; row < (panel + 1) * kPanel<T>; row += kLanes<T>) {
        copies ? pack_copies(block, row, k, count) : pack_squares(block, row, k, count);
      }
      ++panel;
    }
  }
}

template <class T>
void add_panel_rows(const T* panel, size_t rows, T* sums) noexcept {
  constexpr size_t kAll = kPanel<T> / kLanes<T>;
  Vec<T> acc[kAll];
#pragma GCC unroll 12
  for (size_t i = 0; i < kAll; ++i) acc[i] = load(sums + i * kLanes<T>);
  for (; rows > 0; --rows, panel += kPanel<T>) {
#pragma GCC unroll 12
    for (size_t i = 0; i < kAll; ++i) acc[i] += load(panel + i * kLanes<T>);
  }
#pragma GCC unroll 12
  for (size_t i = 0; i < kAll; ++i) store(sums + i * kLanes<T>, acc[i]);
}

template <class T>
GemmKernel<T> make_gemm_kernel() {
  return {run_gemm_block<T>, pack_panels<T>, add_panel_rows<T>};
}
