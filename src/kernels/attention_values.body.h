// The half of the tile that multiplies probabilities with values, and folds chunks together.

// Whether a probability is the -0.0 of a masked pair, not a NaN with its sign set.
template <class V>
POLYHEAD_INLINE auto is_hidden(V p) {
  using T = Element<V>;
  using Bits = decltype(p < p);
  using Int = Element<Bits>;
  return bit_cast<Bits>(p) == (Bits{} + bit_cast<Int>(T{-0.0}));
}

// kDims rows of out, over all pending keys.
// A pair that a mask hides has prob -0.0 and, guarded, leaves out alone whatever its value is.
// innermost kernel
template <int NV, int kDims, bool kUnit, bool kGuarded, class T>
POLYHEAD_INLINE void accumulate_dims(const ValueSum<T>& sum, size_t first, size_t store_from) {
  constexpr int kWidth = NV * kLanes<T>;
  const ptrdiff_t row_stride = sum.value.row_stride;
  const ptrdiff_t step = kUnit ? 1 : sum.value.column_stride;
  T* out = sum.out + first * kWidth;
  Vec<T> acc[kDims][NV];
#pragma GCC unroll 8
  for (int d = 0; d < kDims; ++d) {
#pragma GCC unroll 3
    for (int i = 0; i < NV; ++i) acc[d][i] = load(out + d * kWidth + i * kLanes<T>);
  }
  for (int n = 0; n < sum.num_pending; ++n) {
    const T* probs = sum.pending[n].probs;
    const T* value = sum.pending[n].value + static_cast<ptrdiff_t>(first) * step;
    for (size_t key = sum.pending[n].count; key > 0; --key, probs += kWidth, value += row_stride) {
      Vec<T> p[NV];
#pragma GCC unroll 3
      for (int i = 0; i < NV; ++i) p[i] = load(probs + i * kLanes<T>);
#pragma GCC unroll 8
      for (int d = 0; d < kDims; ++d) {
        const Vec<T> v = broadcast(value + d * step);
#pragma GCC unroll 3
        for (int i = 0; i < NV; ++i) {
          const Vec<T> next = fma(v, p[i], acc[d][i]);
          acc[d][i] = kGuarded ? (is_hidden(p[i]) ? acc[d][i] : next) : next;
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int d = 0; d < kDims; ++d) {
    if (first + static_cast<size_t>(d) < store_from) continue;
#pragma GCC unroll 3
    for (int i = 0; i < NV; ++i) store(out + d * kWidth + i * kLanes<T>, acc[d][i]);
  }
}

// All of value's columns, kDims at a time; the last step overlaps the one before rather than read
// past a row, and stores only what is new.
template <int NV, int kDims, bool kUnit, bool kGuarded, class T>
__attribute__((noinline)) void accumulate_all(const ValueSum<T>& sum) {
  for (size_t d = 0; d < sum.dims; d += kDims) {
    const size_t first = d + kDims <= sum.dims ? d : sum.dims - kDims;
    accumulate_dims<NV, kDims, kUnit, kGuarded>(sum, first, d);
  }
}

template <int NV, class T>
POLYHEAD_INLINE void drain_pending(ValueSum<T>& sum) {
  if (sum.num_pending == 0) return;
  if (sum.guarded) {
    accumulate_all<NV, 1, false, true>(sum);
  } else if (sum.dims < kKeyTile) {
    accumulate_all<NV, 1, false, false>(sum);
  } else if (sum.value.column_stride == 1) {
    accumulate_all<NV, kKeyTile, true, false>(sum);
  } else {
    accumulate_all<NV, kKeyTile, false, false>(sum);
  }
  sum.num_pending = 0;
  sum.guarded = false;
}

// Whether all of `count` rows are finite: 0 * x is 0 then, and NaN otherwise. Eight rows at a
// time, in chains of their own: fewer would wait for themselves.
template <class T>
__attribute__((noinline)) bool rows_are_finite(const Strided<const T>& matrix, const T* row,
                                               size_t count, size_t dims) {
  constexpr size_t kRows = 8;
  Vec<T> zeros[kRows] = {};
  T rest[kRows] = {};
  for (size_t first = 0; first < count; first += kRows) {
    const T* rows[kRows];
    for (size_t n = 0; n < kRows; ++n) {
      rows[n] = row + static_cast<ptrdiff_t>(at_most(first + n, count - 1)) * matrix.row_stride;
    }
    size_t d = 0;
    if (matrix.column_stride == 1) {
      for (; d + kLanes<T> <= dims; d += kLanes<T>) {
#pragma GCC unroll 8
        for (size_t n = 0; n < kRows; ++n) zeros[n] = fma(load(rows[n] + d), Vec<T>{}, zeros[n]);
      }
    }
    for (; d < dims; ++d) {
      const ptrdiff_t at = static_cast<ptrdiff_t>(d) * matrix.column_stride;
#pragma GCC unroll 8
      for (size_t n = 0; n < kRows; ++n) rest[n] += T{0} * rows[n][at];
    }
  }
  Vec<T> sum{};
  const Vec<T> none{};
  T rest_sum = 0;
#pragma GCC unroll 8
  for (size_t n = 0; n < kRows; ++n) {
    sum += zeros[n];
    rest_sum += rest[n];
  }
  return rest_sum == 0 && !any_greater(sum == none ? none : splat(T{1}), none);
}

// exp(from - to), 1 where the two are equal.
template <class V>
POLYHEAD_INLINE V rescale_factor(V from, V to) {
  using T = Element<V>;
  return from == to ? splat(T{1}) : exp2_flushed((from - to) * splat(kLog2E<T>));
}

// total += chunk, per lane: the larger of the two maxima becomes common. An empty side counts for
// nothing, so a lane that a chunk does not reach keeps its bits.
template <class V>
struct ChunkFold {
  V maximum, keep, add;  // total * keep + chunk * add

  POLYHEAD_INLINE ChunkFold(V m_total, V l_total, V m_chunk, V l_chunk) {
    const V none{};
    const auto chunk_empty = l_chunk == none, total_empty = l_total == none;
    maximum = m_total > m_chunk ? m_total : m_chunk;
    maximum = total_empty ? m_chunk : maximum;
    maximum = chunk_empty ? m_total : maximum;
    keep = total_empty ? none : rescale_factor(m_total, maximum);
    add = chunk_empty ? none : rescale_factor(m_chunk, maximum);
  }
};

template <class T, int NV>
POLYHEAD_INLINE void fold_chunk(Tile<T, NV>& tile) {
  constexpr int kWidth = Tile<T, NV>::kWidth;
  for (int i = 0; i < NV; ++i) {
    const ChunkFold<Vec<T>> fold(tile.total_maximum[i], tile.total_sum[i], tile.maximum[i],
                                 tile.sum[i]);
    tile.total_maximum[i] = fold.maximum;
    tile.total_sum[i] = fma(tile.sum[i], fold.add, tile.total_sum[i] * fold.keep);
    for (size_t d = 0; d < tile.in.v_head_dim; ++d) {
      T* total = tile.scratch.total + d * kWidth + i * kLanes<T>;
      const Vec<T> chunk = load(tile.chunk.out + d * kWidth + i * kLanes<T>);
      store(total, fma(chunk, fold.add, load(total) * fold.keep));
    }
  }
}

template <class T, int NV>
__attribute__((noinline)) void end_chunk(Tile<T, NV>& tile) {
  drain_pending<NV>(tile.chunk);
  if (tile.has_total) return fold_chunk(tile);
  std::swap(tile.chunk.out, tile.scratch.total);
  for (int i = 0; i < NV; ++i) {
    tile.total_maximum[i] = tile.maximum[i];
    tile.total_sum[i] = tile.sum[i];
  }
  tile.has_total = true;
}
