// State of a backward tile, and its scratch memory.

// All [n, W] arrays: W = lanes of the tile.
template <class T>
struct BackwardScratch {
  T* query;       // [D, W] transposed, times scale
  T* d_out;       // [Dv, W] transposed
  T* d_query;     // [D, W] of the chunk
  T* bias;        // [8, W] summed masks of one granule
  T* d_weights;   // [8, W] of one granule, by lanes
  T* d_probs;     // [8, W] of one granule
  T* slopes;      // [8, W] of one granule: the derivatives of the softcap
  T* scores;      // [8, W] of one granule, as the score_mod meets them
  T* probs;       // [64, W] of the pending keys
  T* d_scores;    // [64, W] of the pending keys, times scale
  T* query_rows;  // [W, gradient_stride(D)] as in memory, zeros past D
  T* d_out_rows;  // [W, gradient_stride(Dv)]
};

// A granule whose probs and d_scores have not met the rows of queries and d_out yet.
struct PendingKeys {
  size_t key;                  // within the chunk
  size_t first_row, last_row;  // rows [first, last) see any of it
  bool marks;                  // pairs that masks or dropout take out, by -0.0
};

template <class T, int NV>
struct Backward {
  static constexpr int kWidth = NV * kLanes<T>;
  const BackwardTile<T>& in;
  Tile<T, NV> tile{in.in};  // the queries by lanes, and the masks
  BackwardScratch<T> scratch{};
  ValueSum<T> d_query = {};  // d_scores x key; its pending granules are those of `pending`
  Vec<T> lse[NV] = {};       // +inf where nothing is seen: all probabilities are 0
  Vec<T> lse_rest[NV] = {};  // what rounding took from it
  Vec<T> delta[NV] = {};
  PendingKeys pending[kMaxPending] = {};
  int num_pending = 0, pending_limit = 0;
  bool rows_finite = true;  // of queries and d_out
};

// Divides the workspace; `bytes` receives the size of all of it.
template <class T>
BackwardScratch<T> carve_backward(const AttentionTile<T>& in, size_t width, std::byte* memory,
                                  size_t* bytes) {
  size_t used = 0;
  const auto take = [&](size_t count) {
    T* at = memory == nullptr ? nullptr : reinterpret_cast<T*>(memory + used);
    used += round_up(count * sizeof(T), 64);
    return at;
  };
  BackwardScratch<T> scratch{};
  scratch.query = take(in.head_dim * width);
  scratch.d_out = take(in.v_head_dim * width);
  scratch.d_query = take(in.head_dim * width);
  scratch.bias = take(kGranule * width);
  scratch.d_weights = take(kGranule * width);
  scratch.d_probs = take(kGranule * width);
  scratch.slopes = take(in.softcap > 0 ? kGranule * width : 0);
  scratch.scores = take(in.mod != nullptr ? kGranule * width : 0);
  scratch.probs = take(kMaxPending * kGranule * width);
  scratch.d_scores = take(kMaxPending * kGranule * width);
  scratch.query_rows = take(gradient_stride<T>(in.head_dim) * width);
  scratch.d_out_rows = take(gradient_stride<T>(in.v_head_dim) * width);
  *bytes = used;
  return scratch;
}

// The rows of a matrix, side by side, zeros past the last column.
template <class T>
POLYHEAD_INLINE void copy_rows(const Strided<const T>& from, size_t rows, size_t columns, T* to) {
  const T* row = from.data;
  const size_t stride = gradient_stride<T>(columns);
  for (size_t r = 0; r < rows; ++r, row += from.row_stride, to += stride) {
    for (size_t c = 0; c < stride; c += kLanes<T>) {
      const size_t n = c < columns ? at_most(columns - c, kLanes<T>) : 0;
      const T* at = row + static_cast<ptrdiff_t>(c) * from.column_stride;
      store(to + c, n > 0 ? load_row(at, from.column_stride, n) : Vec<T>{});
    }
  }
}

template <class T, int NV>
POLYHEAD_INLINE void load_lse(Backward<T, NV>& b) {
  constexpr T kNothing = std::numeric_limits<T>::infinity();
  T lse[Backward<T, NV>::kWidth], rest[Backward<T, NV>::kWidth] = {};
  for (size_t r = 0; r < Backward<T, NV>::kWidth; ++r) {
    const T x = r < b.in.in.rows ? b.in.lse[static_cast<ptrdiff_t>(r) * b.in.lse_stride] : kNothing;
    lse[r] = x == -kNothing ? kNothing : x;
  }
  for (size_t r = 0; b.in.lse_rest != nullptr && r < b.in.in.rows; ++r) {
    rest[r] = b.in.lse_rest[static_cast<ptrdiff_t>(r) * b.in.lse_rest_stride];
  }
  for (int i = 0; i < NV; ++i) {
    b.lse[i] = load(lse + i * kLanes<T>);
    b.lse_rest[i] = load(rest + i * kLanes<T>);
  }
}

template <class T, int NV>
POLYHEAD_INLINE void load_delta(Backward<T, NV>& b, const T* delta) {
  for (size_t r = 0; r < b.in.in.rows; ++r) b.delta[r / kLanes<T>][r % kLanes<T>] = delta[r];
}

// d_out by lanes; queries by lanes, times scale.
template <class T, int NV>
__attribute__((noinline)) void load_operands(Backward<T, NV>& b) {
  load_query(b.tile);
  load_lanes(rows_of(b.tile), b.in.d_out, b.in.in.v_head_dim, T{1}, b.scratch.d_out);
  load_lse(b);
}

// What d_key and d_value are made of.
template <class T, int NV>
__attribute__((noinline)) void load_rows(Backward<T, NV>& b) {
  const AttentionTile<T>& in = b.in.in;
  copy_rows(in.query, in.rows, in.head_dim, b.scratch.query_rows);
  copy_rows(b.in.d_out, in.rows, in.v_head_dim, b.scratch.d_out_rows);
  b.rows_finite = rows_are_finite(in.query, in.query.data, in.rows, in.head_dim) &&
                  rows_are_finite(b.in.d_out, b.in.d_out.data, in.rows, in.v_head_dim);
}
