// Out of the tile: lanes to rows of out and weights, lse.

// to[row][c] = the lane of row in source(c, i), for c in [0, columns); i is the row's vector.
// Squares of lanes x lanes through the registers.
template <class T, int NV, class Source>
POLYHEAD_INLINE void store_transposed(const Tile<T, NV>& tile, const Strided<T>& to, size_t columns,
                                      const Source& source) {
  constexpr size_t kN = kLanes<T>;
  for (size_t first = 0; first < tile.in.rows; first += kN) {
    const size_t rows = at_most(tile.in.rows - first, kN);
    for (size_t c = 0; c < columns; c += kN) {
      const size_t n = at_most(columns - c, kN);
      T* target = to.data + static_cast<ptrdiff_t>(first) * to.row_stride +
                  static_cast<ptrdiff_t>(c) * to.column_stride;
      Vec<T> square[kN];
      if (n == kN) {
#pragma GCC unroll 16
        for (size_t k = 0; k < kN; ++k) square[k] = source(c + k, first / kN);
      } else {
        for (size_t k = 0; k < kN; ++k) square[k] = k < n ? source(c + k, first / kN) : Vec<T>{};
      }
      transpose(square);
      if (n == kN && to.column_stride == 1) {
#pragma GCC unroll 16
        for (size_t r = 0; r < kN; ++r) {
          if (r < rows) store(target + static_cast<ptrdiff_t>(r) * to.row_stride, square[r]);
        }
      } else {
        for (size_t r = 0; r < rows; ++r, target += to.row_stride) {
          store_row(target, to.column_stride, square[r], n);
        }
      }
    }
  }
}

// What a row is multiplied with at the end, 1 / l (or more, for what dropout keeps), and what is
// added: +0.0, which turns -0.0 into 0, or NaN on an empty row under EmptyRow::kNan.
template <class T, int NV>
struct Normaliser {
  Vec<T> factor[NV], offset[NV];

  POLYHEAD_INLINE Normaliser(const AttentionTile<T>& in, const Vec<T> (&sum)[NV]) {
    const bool nan = in.empty_rows_nan && in.kv_len + in.num_extra > 0;
    const Vec<T> for_empty = splat(nan ? std::numeric_limits<T>::quiet_NaN() : T{0});
    for (int i = 0; i < NV; ++i) {
      const auto empty = sum[i] == Vec<T>{};
      factor[i] = empty ? Vec<T>{} : splat(in.kept_scale) / sum[i];
      offset[i] = empty ? for_empty : Vec<T>{};
    }
  }
};

template <class T, int NV>
__attribute__((noinline)) void store_out(const Tile<T, NV>& tile, const Normaliser<T, NV>& by) {
  const T* total = tile.scratch.total;
  store_transposed(tile, tile.in.out, tile.in.v_head_dim, [&](size_t d, size_t i) {
    return load(total + (d * NV + i) * kLanes<T>) * by.factor[i] + by.offset[i];
  });
}

// lse = m + log(l), and what is lost where it is rounded to T.
template <class T>
POLYHEAD_INLINE void store_lse_of(const AttentionTile<T>& in, size_t row, T m, T sum) {
  const double log_sum = sum == 0 ? kMasked<double> : natural_log(static_cast<double>(sum));
  const double exact = static_cast<double>(m) + log_sum;
  const T lse = static_cast<T>(exact);
  const auto r = static_cast<ptrdiff_t>(row);
  if (in.lse != nullptr) in.lse[r * in.lse_stride] = lse;
  if (in.lse_rest == nullptr) return;
  const double rest = exact - static_cast<double>(lse);
  in.lse_rest[r * in.lse_rest_stride] = static_cast<T>(rest == rest ? rest : 0);  // inf - inf
}

template <class T, int NV>
__attribute__((noinline)) void store_lse(const Tile<T, NV>& tile) {
  for (size_t r = 0; r < tile.in.rows; ++r) {
    const size_t i = r / kLanes<T>, lane = r % kLanes<T>;
    store_lse_of<T>(tile.in, r, tile.total_maximum[i][lane], tile.total_sum[i][lane]);
  }
}

// The weight of column c: what its head's probabilities become, known once all keys have been seen.
// A granule's maximum becomes its factor.
template <class T, int NV>
struct WeightsOfTile {
  const Tile<T, NV>& tile;
  const Normaliser<T, NV>& by;

  POLYHEAD_INLINE WeightsOfTile(const Tile<T, NV>& of, const Normaliser<T, NV>& normaliser)
      : tile(of), by(normaliser) {
    for (size_t n = 0; n < num_granules(of.in) * NV; ++n) {
      T* factor = tile.scratch.maxima + n * kLanes<T>;
      store(factor, rescale_factor(load(factor), tile.total_maximum[n % NV]));
    }
  }

  POLYHEAD_INLINE Vec<T> operator()(size_t c, size_t i) const {
    const Vec<T> p = load(tile.scratch.probs + (c * NV + i) * kLanes<T>);
    const Vec<T> factor = load(tile.scratch.maxima + (c / kGranule * NV + i) * kLanes<T>);
    return weight_of(p, factor, by.factor[i], by.offset[i]);
  }
};

// Columns [0, S) stand first in `weights`, the appended ones from the next multiple of 8 on. A loop
// over the two: what is in it is large.
template <class T, int NV, class Source>
POLYHEAD_INLINE void store_columns(const Tile<T, NV>& tile, const Source& weights) {
  const size_t counts[] = {tile.in.kv_len, tile.in.num_extra};
  Strided<T> to = tile.in.weights;
  size_t first = 0;
#pragma GCC unroll 1
  for (const size_t columns : counts) {
    store_transposed(tile, to, columns, [&](size_t c, size_t i) { return weights(first + c, i); });
    to.data += static_cast<ptrdiff_t>(columns) * to.column_stride;
    first = round_up(columns, kGranule);
  }
}

template <class T, int NV>
__attribute__((noinline)) void store_weights(Tile<T, NV>& tile, const Normaliser<T, NV>& by) {
  const HeadSequence& heads = tile.in.heads;
  if (heads.average && !heads.last()) return leave_weights(tile, by.factor, by.offset);
  const WeightsOfTile<T, NV> weights(tile, by);
  if (!heads.average || heads.first()) return store_columns(tile, weights);
  const Vec<T> count = splat(static_cast<T>(heads.count));
  store_columns(tile, [&](size_t c, size_t i) {
    return (load(tile.scratch.average + (c * NV + i) * kLanes<T>) + weights(c, i)) / count;
  });
}
