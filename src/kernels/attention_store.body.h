// Out of the tile: lanes to rows of out and weights, lse.

template <class T>
POLYHEAD_INLINE void store_row(T* to, ptrdiff_t column_stride, Vec<T> v, size_t n) {
  if (column_stride == 1) {
    if (n == kLanes<T>) return store(to, v);
    return store_part(to, v, n);
  }
  for (size_t c = 0; c < n; ++c) to[static_cast<ptrdiff_t>(c) * column_stride] = v[c];
}

// A block of lanes x lanes in registers: to[r][k] = from[k][r] * factor[r] + offset[r], r < rows.
template <class T>
POLYHEAD_INLINE void store_block(const T* from, size_t width, const Strided<T>& to, Vec<T> factor,
                                 Vec<T> offset, size_t rows) {
  constexpr int kN = kLanes<T>;
  Vec<T> block[kN];
#pragma GCC unroll 16
  for (int k = 0; k < kN; ++k) {
    block[k] = load(from + static_cast<size_t>(k) * width) * factor + offset;
  }
  transpose(block);
#pragma GCC unroll 16
  for (int r = 0; r < kN; ++r) {
    if (static_cast<size_t>(r) < rows) store(to.data + r * to.row_stride, block[r]);
  }
}

// to[row][c] = from[c][lane] * factor[lane] + offset[lane] for c in [0, columns).
template <class T, int NV>
__attribute__((noinline)) void store_transposed(const Tile<T, NV>& tile, const T* from,
                                                const Strided<T>& to, size_t columns,
                                                const Vec<T> (&factor)[NV],
                                                const Vec<T> (&offset)[NV]) {
  constexpr size_t kN = kLanes<T>;
  for (size_t first = 0; first < tile.in.rows; first += kN) {
    const size_t rows = at_most(tile.in.rows - first, kN);
    for (size_t c = 0; c < columns; c += kN) {
      const size_t n = at_most(columns - c, kN);
      const T* source = from + c * Tile<T, NV>::kWidth + first;
      const Strided<T> target{to.data + static_cast<ptrdiff_t>(first) * to.row_stride +
                                  static_cast<ptrdiff_t>(c) * to.column_stride,
                              to.row_stride, to.column_stride};
      const size_t i = first / kN;
      if (n == kN && to.column_stride == 1) {
        store_block(source, Tile<T, NV>::kWidth, target, factor[i], offset[i], rows);
        continue;
      }
      Vec<T> block[kN] = {};
      for (size_t k = 0; k < n; ++k) {
        block[k] = load(source + k * Tile<T, NV>::kWidth) * factor[i] + offset[i];
      }
      transpose(block);
      for (size_t r = 0; r < rows; ++r) {
        store_row(target.data + static_cast<ptrdiff_t>(r) * to.row_stride, to.column_stride,
                  block[r], n);
      }
    }
  }
}

// What a row is multiplied with at the end, 1 / l, and what is added: +0.0, which turns -0.0 into
// 0, or NaN on an empty row under EmptyRow::kNan.
template <class T, int NV>
struct Normaliser {
  Vec<T> factor[NV], offset[NV];

  explicit POLYHEAD_INLINE Normaliser(const Tile<T, NV>& tile) {
    const bool nan = tile.in.empty_rows_nan && tile.in.kv_len + tile.in.num_extra > 0;
    const Vec<T> for_empty = splat(nan ? std::numeric_limits<T>::quiet_NaN() : T{0});
    for (int i = 0; i < NV; ++i) {
      const auto empty = tile.total_sum[i] == Vec<T>{};
      factor[i] = empty ? Vec<T>{} : splat(T{1}) / tile.total_sum[i];
      offset[i] = empty ? for_empty : Vec<T>{};
    }
  }
};

// lse = m + log(l).
template <class T, int NV>
__attribute__((noinline)) void store_lse(const Tile<T, NV>& tile) {
  for (size_t r = 0; r < tile.in.rows; ++r) {
    const size_t i = r / kLanes<T>, lane = r % kLanes<T>;
    const T sum = tile.total_sum[i][lane];
    const double m = static_cast<double>(tile.total_maximum[i][lane]);
    tile.in.lse[static_cast<ptrdiff_t>(r) * tile.in.lse_stride] =
        sum == 0 ? kMasked<T> : static_cast<T>(m + natural_log(static_cast<double>(sum)));
  }
}

// probs -> weights in place: (p * exp(m_then - m)) / l. The factor may have overflowed where a lane
// had seen no key yet, so it is not multiplied with p = 0. A row with a NaN or +inf score is NaN
// throughout, its l being NaN.
template <class T, int NV>
POLYHEAD_INLINE void normalise_weights(const Tile<T, NV>& tile, const Normaliser<T, NV>& by,
                                       size_t granules) {
  constexpr size_t kWidth = Tile<T, NV>::kWidth;
  for (size_t n = 0; n < granules * NV; ++n) {
    const size_t g = n / NV, i = n % NV;
    const Vec<T> then = load(tile.scratch.maxima + g * kWidth + i * kLanes<T>);
    const Vec<T> factor = rescale_factor(then, tile.total_maximum[i]);
    T* probs = tile.scratch.probs + g * kGranule * kWidth + i * kLanes<T>;
    for (int j = 0; j < kGranule; ++j, probs += kWidth) {
      const Vec<T> p = load(probs), scaled = p == Vec<T>{} ? Vec<T>{} : p * factor;
      store(probs, scaled * by.factor[i] + by.offset[i]);
    }
  }
}

// [0, S) start at row 0 of `from`, the appended columns at the next multiple of 8.
template <class T, int NV>
POLYHEAD_INLINE void store_columns(const Tile<T, NV>& tile, const T* from,
                                   const Vec<T> (&factor)[NV]) {
  const Vec<T> none[NV] = {};
  const size_t kv_len = tile.in.kv_len, padded = (kv_len + kGranule - 1) / kGranule * kGranule;
  store_transposed(tile, from, tile.in.weights, kv_len, factor, none);
  Strided<T> extra = tile.in.weights;
  extra.data += static_cast<ptrdiff_t>(kv_len) * extra.column_stride;
  store_transposed(tile, from + padded * Tile<T, NV>::kWidth, extra, tile.in.num_extra, factor,
                   none);
}

template <class T, int NV>
__attribute__((noinline)) void store_weights(Tile<T, NV>& tile, const Normaliser<T, NV>& by) {
  constexpr size_t kWidth = Tile<T, NV>::kWidth;
  const size_t granules = (tile.in.kv_len + kGranule - 1) / kGranule + (tile.in.num_extra > 0);
  normalise_weights(tile, by, granules);
  Vec<T> one[NV];
  for (Vec<T>& v : one) v = splat(T{1});
  if (tile.in.heads_to_average == 0) return store_columns(tile, tile.scratch.probs, one);
  T* average = tile.scratch.average;
  const size_t numbers = granules * kGranule * kWidth;
  for (size_t n = 0; n < numbers; n += kLanes<T>) {
    const Vec<T> weight = load(tile.scratch.probs + n);
    store(average + n, tile.in.head == 0 ? weight : load(average + n) + weight);
  }
  if (tile.in.head + 1 < tile.in.heads_to_average) return;
  const Vec<T> heads = splat(static_cast<T>(tile.in.heads_to_average));
  for (size_t n = 0; n < numbers; n += kLanes<T>) store(average + n, load(average + n) / heads);
  store_columns(tile, average, one);
}
