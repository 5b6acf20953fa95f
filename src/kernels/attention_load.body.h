// Into the tile: rows of a matrix in memory become lanes.

// Transposes [rows of the tile, columns]: calls use(column, first lane, vector of that column); the
// lanes past the last row are 0.
template <class T, int NV, class Use>
POLYHEAD_INLINE void for_each_column(const Tile<T, NV>& tile, const Strided<const T>& source,
                                     size_t columns, const Use& use) {
  constexpr size_t kN = kLanes<T>;
  for (size_t first = 0; first < Tile<T, NV>::kWidth; first += kN) {
    const size_t rows = first < tile.in.rows ? at_most(tile.in.rows - first, kN) : 0;
    for (size_t c = 0; c < columns; c += kN) {
      const size_t n = at_most(columns - c, kN);
      const T* row = source.data + static_cast<ptrdiff_t>(first) * source.row_stride +
                     static_cast<ptrdiff_t>(c) * source.column_stride;
      Vec<T> block[kN];
      if (n == kN && source.column_stride == 1) {
#pragma GCC unroll 16
        for (size_t r = 0; r < kN; ++r) {
          block[r] =
              r < rows ? load(row + static_cast<ptrdiff_t>(r) * source.row_stride) : Vec<T>{};
        }
      } else {
        for (size_t r = 0; r < kN; ++r, row += source.row_stride) {
          block[r] = r < rows ? load_row(row, source.column_stride, n) : Vec<T>{};
        }
      }
      transpose(block);
#pragma GCC unroll 16
      for (size_t k = 0; k < kN; ++k) {
        if (k < n) use(c + k, first, block[k]);
      }
    }
  }
}

// scratch.query[d][lane] = scale * query[row][d].
template <class T, int NV>
__attribute__((noinline)) void load_query(Tile<T, NV>& tile) {
  const Vec<T> scale = splat(tile.in.scale);
  T* query = tile.scratch.query;
  for_each_column(tile, tile.in.query, tile.in.head_dim, [&](size_t d, size_t lane, Vec<T> q) {
    store(query + d * Tile<T, NV>::kWidth + lane, q * scale);
  });
}

// Asks for `count` rows from `first` on, as far as there are so many.
template <class T>
POLYHEAD_INLINE void prefetch_rows(const Strided<const T>& matrix, size_t first, size_t count,
                                   size_t columns) {
  constexpr size_t kLine = 64 / sizeof(T);
  for (size_t row = first; row < first + count; ++row) {
    const T* at = matrix.data + static_cast<ptrdiff_t>(row) * matrix.row_stride;
    for (size_t c = 0; c < columns; c += kLine) __builtin_prefetch(at + c);
  }
}
