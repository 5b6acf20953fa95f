// Gradients of key and value rows: the products whose lanes are columns.

// sums[key][c] += sum over r in [first, last) of factors[key][r] * rows[r][c], for the eight keys
// of a granule.
template <class T>
struct RowSum {
  const T* factors;    // [8, width]
  size_t width;        // lanes of the tile
  const T* rows;       // [last, stride]
  T* sums;             // [8, stride]
  size_t stride;       // whole vectors
  size_t first, last;  // rows
};

// kVectors vectors of columns from `column` on. Guarded, a hidden pair (factor -0.0) is left out
// whatever the row's numbers are.
// innermost kernel
template <int kVectors, bool kGuarded, class T>
POLYHEAD_INLINE void add_columns(const RowSum<T>& sum, size_t column) {
#pragma GCC unroll 2
  for (int part = 0; part < kGranule; part += kKeyTile) {
    const T* factors = sum.factors + static_cast<size_t>(part) * sum.width;
    T* sums = sum.sums + static_cast<size_t>(part) * sum.stride + column;
    Vec<T> acc[kKeyTile][kVectors];
#pragma GCC unroll 8
    for (int j = 0; j < kKeyTile; ++j) {
#pragma GCC unroll 3
      for (int i = 0; i < kVectors; ++i) {
        acc[j][i] = load(sums + static_cast<size_t>(j) * sum.stride + i * kLanes<T>);
      }
    }
    const T* row = sum.rows + sum.first * sum.stride + column;
    for (size_t r = sum.first; r < sum.last; ++r, row += sum.stride) {
      Vec<T> x[kVectors];
#pragma GCC unroll 3
      for (int i = 0; i < kVectors; ++i) x[i] = load(row + i * kLanes<T>);
#pragma GCC unroll 8
      for (int j = 0; j < kKeyTile; ++j) {
        const Vec<T> f = broadcast(factors + static_cast<size_t>(j) * sum.width + r);
#pragma GCC unroll 3
        for (int i = 0; i < kVectors; ++i) {
          const Vec<T> next = fma(f, x[i], acc[j][i]);
          acc[j][i] = kGuarded ? (is_hidden(f) ? acc[j][i] : next) : next;
        }
      }
    }
#pragma GCC unroll 8
    for (int j = 0; j < kKeyTile; ++j) {
#pragma GCC unroll 3
      for (int i = 0; i < kVectors; ++i) {
        store(sums + static_cast<size_t>(j) * sum.stride + i * kLanes<T>, acc[j][i]);
      }
    }
  }
}

// As many columns at a time as leave registers for the factors: 8 x 2 or 4 x 3 accumulators.
inline constexpr int kColumnVectors = kKeyTile == 8 ? 2 : 3;

template <bool kGuarded, class T>
__attribute__((noinline)) void add_all_columns(const RowSum<T>& sum) {
  constexpr size_t kStep = static_cast<size_t>(kColumnVectors) * kLanes<T>;
  size_t column = 0;
  for (; column + kStep <= sum.stride; column += kStep) {
    add_columns<kColumnVectors, kGuarded>(sum, column);
  }
  for (; column + 2 * kLanes<T> <= sum.stride; column += 2 * kLanes<T>) {
    add_columns<2, kGuarded>(sum, column);
  }
  if (column < sum.stride) add_columns<1, kGuarded>(sum, column);
}

template <class T>
POLYHEAD_INLINE void add_rows(const RowSum<T>& sum, bool guarded) {
  guarded ? add_all_columns<true>(sum) : add_all_columns<false>(sum);
}
