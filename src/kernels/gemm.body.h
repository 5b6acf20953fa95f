// The GEMM block; gemm.h says what it computes.

// The lanes of v that are columns of out.
template <class T>
POLYHEAD_INLINE void store_columns(T* row, ptrdiff_t step, size_t column, size_t n, Vec<T> v) {
  if (column >= n) return;
  T* out = row + static_cast<ptrdiff_t>(column) * step;
  const size_t count = n - column;
  if (step == 1 && count >= kLanes<T>) return store(out, v);
  for (size_t c = 0; c < count && c < kLanes<T>; ++c) out[static_cast<ptrdiff_t>(c) * step] = v[c];
}

// kRows rows of one panel's part of 3 vectors. Rows past the last repeat it, and are not stored.
// innermost kernel
template <int kRows, class T>
POLYHEAD_INLINE void gemm_rows(const GemmBlock<T>& block, size_t row, size_t panel, size_t part) {
  constexpr size_t kColumns = 3 * kLanes<T>;
  const size_t column = panel * kPanel<T> + part * kColumns;
  const T* weight = block.packed + panel * kPanel<T> * block.k + part * kColumns;
  const T* a[kRows];
  Vec<T> acc[kRows][3];
#pragma GCC unroll 8
  for (int j = 0; j < kRows; ++j) {
    const size_t m = row + static_cast<size_t>(j);
    a[j] = block.a.row(m < block.row_end ? m : block.row_end - 1);
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) acc[j][i] = Vec<T>{};
  }
  const ptrdiff_t step = block.a.column_stride;
  ptrdiff_t at = 0;
  for (size_t k = block.k; k > 0; --k, at += step, weight += kPanel<T>) {
    Vec<T> w[3];
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) w[i] = load(weight + i * kLanes<T>);
#pragma GCC unroll 8
    for (int j = 0; j < kRows; ++j) {
      const Vec<T> x = broadcast(a[j] + at);
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i) acc[j][i] = fma(x, w[i], acc[j][i]);
    }
  }
#pragma GCC unroll 8
  for (int j = 0; j < kRows; ++j) {
    if (row + static_cast<size_t>(j) >= block.row_end) continue;
    T* out = block.out.row(row + static_cast<size_t>(j));
#pragma GCC unroll 3
    for (int i = 0; i < 3; ++i) {
      const Vec<T> bias = load(block.bias + column + i * kLanes<T>);
      store_columns(out, block.out.column_stride, column + i * kLanes<T>, block.n,
                    acc[j][i] + bias);
    }
  }
}

template <class T>
void run_gemm_block(const GemmBlock<T>& block) noexcept {
  constexpr size_t kParts = kPanel<T> / (3 * kLanes<T>);
  for (size_t panel = block.panel_begin; panel < block.panel_end; ++panel) {
    for (size_t part = 0; part < kParts; ++part) {
      if (block.row_end - block.row_begin == 1) {
        gemm_rows<1>(block, block.row_begin, panel, part);
        continue;
      }
      for (size_t row = block.row_begin; row < block.row_end; row += kKeyTile) {
        gemm_rows<kKeyTile>(block, row, panel, part);
      }
    }
  }
}
