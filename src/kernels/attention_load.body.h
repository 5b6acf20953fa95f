// Into the tile: rows of a matrix in memory become lanes.

// rows x n of a matrix, column_stride apart, into a square of lanes x lanes; zeros past them.
template <class T>
POLYHEAD_INLINE void load_square(const T* row, const Strided<const T>& source, size_t rows,
                                 size_t n, Vec<T> (&square)[kLanes<T>]) {
  constexpr size_t kN = kLanes<T>;
  if (rows == kN && n == kN && source.column_stride == 1) {
#pragma GCC unroll 16
    for (size_t r = 0; r < kN; ++r) {
      square[r] = load(row + static_cast<ptrdiff_t>(r) * source.row_stride);
    }
  } else if (n == kN && source.column_stride == 1) {
#pragma GCC unroll 16
    for (size_t r = 0; r < kN; ++r) {
      square[r] = r < rows ? load(row + static_cast<ptrdiff_t>(r) * source.row_stride) : Vec<T>{};
    }
  } else {
    for (size_t r = 0; r < kN; ++r, row += source.row_stride) {
      square[r] = r < rows ? load_row(row, source.column_stride, n) : Vec<T>{};
    }
  }
}

// Half as many columns as lanes: two rows to a vector, so that nothing of it is empty.
template <class T>
POLYHEAD_INLINE void load_half_square(const T* row, ptrdiff_t row_stride, size_t rows,
                                      Vec<T> (&square)[kLanes<T> / 2]) {
  constexpr size_t kHalf = kLanes<T> / 2;
  const T zeros[kHalf] = {};
#pragma GCC unroll 8
  for (size_t r = 0; r < kHalf; ++r) {
    const T* low = r < rows ? row + static_cast<ptrdiff_t>(r) * row_stride : zeros;
    const T* high = r + kHalf < rows ? row + static_cast<ptrdiff_t>(r + kHalf) * row_stride : zeros;
    square[r] = load_halves(low, high);
  }
}

// Rows of a tile that is so many lanes wide.
struct TileRows {
  size_t count, width;
};

template <class T, int NV>
POLYHEAD_INLINE TileRows rows_of(const Tile<T, NV>& tile) {
  return {tile.in.rows, Tile<T, NV>::kWidth};
}

// Transposes [rows, columns]: calls use(column, first lane, vector of that column); the lanes past
// the last row are 0.
template <class T, class Use>
POLYHEAD_INLINE void for_each_column(const TileRows& of, const Strided<const T>& source,
                                     size_t columns, const Use& use) {
  constexpr size_t kN = kLanes<T>;
  for (size_t first = 0; first < of.width; first += kN) {
    const size_t rows = first < of.count ? at_most(of.count - first, kN) : 0;
    for (size_t c = 0; c < columns; c += kN) {
      const size_t n = at_most(columns - c, kN);
      const T* row = source.data + static_cast<ptrdiff_t>(first) * source.row_stride +
                     static_cast<ptrdiff_t>(c) * source.column_stride;
      if (2 * n == kN && source.column_stride == 1) {
        Vec<T> square[kN / 2];
        load_half_square(row, source.row_stride, rows, square);
        transpose(square);
#pragma GCC unroll 8
        for (size_t k = 0; k < kN / 2; ++k) use(c + k, first, square[k]);
        continue;
      }
      Vec<T> square[kN];
      load_square(row, source, rows, n, square);
      transpose(square);
#pragma GCC unroll 16
      for (size_t k = 0; k < kN; ++k) {
        if (k < n) use(c + k, first, square[k]);
      }
    }
  }
}

// to[column][lane] = factor * source[row][column]. One for all widths of tiles: it is large.
template <class T>
__attribute__((noinline)) void load_lanes(const TileRows& of, const Strided<const T>& source,
                                          size_t columns, T factor, T* to) {
  const Vec<T> by = splat(factor);
  for_each_column(of, source, columns, [&](size_t c, size_t lane, Vec<T> x) {
    store(to + c * of.width + lane, x * by);
  });
}

template <class T, int NV>
POLYHEAD_INLINE void load_query(Tile<T, NV>& tile) {
  const AttentionTile<T>& in = tile.in;
  load_lanes(rows_of(tile), in.query, in.head_dim, in.scale, tile.scratch.query);
}

// Asks for the rows [first, first + kRows) of keys or values.
template <int kRows, class T>
POLYHEAD_INLINE void prefetch_rows(const Strided<const T>& matrix, size_t first, size_t columns) {
  constexpr size_t kLine = 64 / sizeof(T);
  if (matrix.column_stride != 1) return;
  const T* row = matrix.data + static_cast<ptrdiff_t>(first) * matrix.row_stride;
  for (int j = 0; j < kRows; ++j, row += matrix.row_stride) {
    for (size_t c = 0; c < columns; c += kLine) __builtin_prefetch(row + c);
  }
}
