// From keys to probabilities, and to the gradient of their scores.

// probs of a granule; -0.0 where hidden.
template <bool kHides, class T, int NV>
POLYHEAD_INLINE void probs_again(const Backward<T, NV>& b, const Granule<T>& granule,
                                 const Hiding<T, NV>& hiding, Vec<T> (&s)[kGranule][NV]) {
  const AttentionTile<T>& in = b.in.in;
  dot_tile<T, NV>({b.scratch.query, in.head_dim}, granule.rows, in.key.column_stride, s);
  if (kHides) {
    mask_scores(hiding, s);
  } else if (granule.has_bias) {
    add_bias(b.scratch.bias, s);
  }
  const Vec<T> log2e = splat(kLog2E<T>);
#pragma GCC unroll 3
  for (int i = 0; i < NV; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kGranule; ++j) {
      const Vec<T> p = exp2_flushed((s[j][i] - b.lse[i]) * log2e);
      s[j][i] = kHides && hiding(j, i) ? splat(T{-0.0}) : p;
    }
  }
}

// The granule's part of d_weights by lanes, zeros past the last key.
template <class T, int NV>
__attribute__((noinline)) void load_d_weights(const Backward<T, NV>& b, size_t key, size_t count) {
  constexpr size_t kWidth = Backward<T, NV>::kWidth;
  T* to = b.scratch.d_weights;
  __builtin_memset(to, 0, kGranule * kWidth * sizeof(T));
  Strided<const T> from = b.in.d_weights;
  from.data += static_cast<ptrdiff_t>(key) * from.column_stride;
  const Vec<T> share = splat(b.in.weights_share);
  for_each_column(b.tile, from, count, [&](size_t j, size_t lane, Vec<T> x) {
    store(to + j * kWidth + lane, x * share);
  });
}

// d_p of a granule, from its value rows.
template <class T, int NV>
POLYHEAD_INLINE void d_probs(const Backward<T, NV>& b, const Granule<T>& granule,
                             Vec<T> (&d_p)[kGranule][NV]) {
  const Strided<const T>& value = b.in.in.value;
  const T* rows[kGranule];
  for (size_t j = 0; j < kGranule; ++j) {
    rows[j] =
        granule.value + static_cast<ptrdiff_t>(at_most(j, granule.count - 1)) * value.row_stride;
  }
  dot_tile<T, NV>({b.scratch.d_out, b.in.in.v_head_dim}, rows, value.column_stride, d_p);
  if (b.in.d_weights.data != nullptr) add_bias(b.scratch.d_weights, d_p);
}

// Probs and d_scores of a granule into their places; hidden pairs get -0.0 in both, and no other
// pair does.
template <bool kHides, class T, int NV>
__attribute__((noinline)) void differentiate(const Backward<T, NV>& b, const Granule<T>& granule,
                                             T* d_scores, T* d_bias) {
  const Hiding<T, NV> hiding(b.tile, granule);
  Vec<T> s[kGranule][NV];  // [keys, lanes]
  probs_again<kHides>(b, granule, hiding, s);
#pragma GCC unroll 24
  for (int n = 0; n < kGranule * NV; ++n) store(granule.probs + n * kLanes<T>, s[n / NV][n % NV]);
  d_probs(b, granule, s);
  const Vec<T> scale = splat(b.in.in.scale);
#pragma GCC unroll 8
  for (int j = 0; j < kGranule; ++j) {
#pragma GCC unroll 3
    for (int i = 0; i < NV; ++i) {
      const int at = (j * NV + i) * kLanes<T>;
      Vec<T> d_s = load(granule.probs + at) * (s[j][i] - b.delta[i]);
      if (kHides) d_s = hiding(j, i) ? Vec<T>{} : d_s;
      if (d_bias != nullptr) store(d_bias + at, load(d_bias + at) + d_s);
      d_s = fma(d_s, scale, Vec<T>{});  // + 0: a product may be -0.0
      store(d_scores + at, kHides && hiding(j, i) ? splat(T{-0.0}) : d_s);
    }
  }
}

// delta of the rows so far, and the weights' part of it over the granules of [0, kv_len).
template <class T, int NV>
__attribute__((noinline)) void add_weights_to_delta(Backward<T, NV>& b) {
  for (size_t key = 0; key < b.in.in.kv_len; key += kGranule) {
    Granule<T> granule;
    if (!see_granule(b.tile, key, &granule)) continue;
    load_d_weights(b, key, granule.count);
    const Hiding<T, NV> hiding(b.tile, granule);
    Vec<T> p[kGranule][NV];  // [keys, lanes]
    probs_again<true>(b, granule, hiding, p);
    for (int j = 0; j < kGranule; ++j) {
      for (int i = 0; i < NV; ++i) {
        const Vec<T> d_w = load(b.scratch.d_weights + (j * NV + i) * kLanes<T>);
        b.delta[i] = hiding(j, i) ? b.delta[i] : fma(p[j][i], d_w, b.delta[i]);
      }
    }
  }
}
