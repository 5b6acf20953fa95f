// From keys to probabilities, and to the gradient of their scores.

// Loops over a granule's vectors here stay rolled, to keep the code small: their numbers are in L1.

// Scores [8, W] of a granule, without what masks add. With a softcap, scratch.slopes are its
// derivatives; a score_mod may hide pairs, and finds its scores again in scratch.scores.
template <class T, int NV>
POLYHEAD_INLINE void scores_again(Backward<T, NV>& b, Granule<T>* granule, T* scores) {
  constexpr size_t kSize = size_t{kGranule} * Backward<T, NV>::kWidth;
  const AttentionTile<T>& in = b.in.in;
  dot_rows<T, NV>({b.scratch.query, in.head_dim}, granule->rows, in.key.column_stride, scores);
  if (in.softcap > 0) cap_scores(in, kSize, scores, b.scratch.slopes);
  if (granule->mod == nullptr) return;
  __builtin_memcpy(b.scratch.scores, scores, kSize * sizeof(T));
  modify_scores(b.tile, scores, granule);
}

// probs [8, W] in place of the scores; -0.0 where hidden.
template <bool kHides, class T, int NV>
POLYHEAD_INLINE void probs_again(const Backward<T, NV>& b, const Granule<T>& granule,
                                 const Hiding<T, NV>& hiding, T* probs) {
  if (granule.distances != nullptr) {
    add_distances(*granule.distances, granule.from_first, NV, probs);
  }
  const Vec<T> log2e = splat(kLog2E<T>);
#pragma GCC unroll 1
  for (int j = 0; j < kGranule; ++j) {
#pragma GCC unroll 3
    for (int i = 0; i < NV; ++i, probs += kLanes<T>) {
      Vec<T> s = load(probs);
      if (kHides || granule.has_bias) s += hiding.bias_of(j, i);
      const Vec<T> p = exp2_flushed((s - b.lse[i] - b.lse_rest[i]) * log2e);
      store(probs, kHides && hiding(j, i) ? splat(T{-0.0}) : p);
    }
  }
}

// The granule's part of d_weights by lanes, times weights_share, zeros past the last key.
template <class T, int NV>
POLYHEAD_INLINE void load_d_weights(const Backward<T, NV>& b, size_t key, size_t count) {
  constexpr size_t kWidth = Backward<T, NV>::kWidth;
  T* to = b.scratch.d_weights;
  __builtin_memset(to, 0, kGranule * kWidth * sizeof(T));
  Strided<const T> from = b.in.d_weights;
  from.data += static_cast<ptrdiff_t>(key) * from.column_stride;
  load_lanes(rows_of(b.tile), from, count, b.in.weights_share, to);
}

// d_p [8, W] of a granule before dropout, without the weights' part.
template <class T, int NV>
POLYHEAD_INLINE void d_probs(const Backward<T, NV>& b, const Granule<T>& granule, T* d_p) {
  const Strided<const T>& value = b.in.in.value;
  const T* rows[kGranule];
  for (size_t j = 0; j < kGranule; ++j) {
    rows[j] =
        granule.value + static_cast<ptrdiff_t>(at_most(j, granule.count - 1)) * value.row_stride;
  }
  dot_rows<T, NV>({b.scratch.d_out, b.in.in.v_head_dim}, rows, value.column_stride, d_p);
}

template <class T>
POLYHEAD_INLINE uint32_t granule_index(const BackwardTile<T>& in, size_t key) {
  return in.appended ? kAppendedGranule : static_cast<uint32_t>(key / kGranule);
}

// What dropout leaves of probs [8, W]: times 1 / (1 - p), or -0.0.
template <class T, int NV>
__attribute__((noinline)) void keep_pairs(const Tile<T, NV>& tile, uint32_t index, const T* probs,
                                          T* kept) {
  const Vec<T> scale = splat(tile.in.kept_scale);
  for_each_drawn(*tile.draws, index, [&](int key, int i, auto dropped) {
    const int at = (key * NV + i) * kLanes<T>;
    store(kept + at, dropped ? splat(T{-0.0}) : load(probs + at) * scale);
  });
}

// Where a granule's numbers go besides probs, and which one it is for dropout.
template <class T>
struct GranuleGradients {
  uint32_t index;
  T* d_scores;  // [8, W]
  T* d_bias;    // [8, W] added to; null: not wanted
};

// The derivatives of a granule's finished scores become those of query . key.
template <class T, int NV>
__attribute__((noinline)) void unmodify(const Backward<T, NV>& b, const Granule<T>& granule,
                                        T* d_scores) {
  const Hiding<T, NV> hiding(b.tile, granule);
  const Vec<T> scale = splat(b.in.in.scale);
  const TileScores scores = scores_of(b.tile, granule, b.scratch.scores);
  granule.mod->differentiate(*granule.mod, scores, d_scores);
#pragma GCC unroll 1
  for (int n = 0; n < kGranule * NV; ++n) {
    Vec<T> d_s = load(d_scores + n * kLanes<T>);
    if (b.in.in.softcap > 0) d_s *= load(b.scratch.slopes + n * kLanes<T>);
    d_s = fma(d_s, scale, Vec<T>{});
    store(d_scores + n * kLanes<T>, hiding(n / NV, n % NV) ? splat(T{-0.0}) : d_s);
  }
}

// Probs (what dropout leaves of them) and d_scores of a granule into their places; hidden pairs get
// -0.0 in both, dropped ones in probs, and no other pair does.
template <bool kHides, class T, int NV>
__attribute__((noinline)) void differentiate(Backward<T, NV>& b, Granule<T>& granule,
                                             const GranuleGradients<T>& to) {
  const AttentionTile<T>& in = b.in.in;
  const bool drops = in.dropout.threshold > 0, weights = b.in.d_weights.data != nullptr;
  T* probs = drops ? to.d_scores : granule.probs;  // in full
  scores_again(b, &granule, probs);
  const Hiding<T, NV> hiding(b.tile, granule);
  probs_again<kHides>(b, granule, hiding, probs);
  if (drops) keep_pairs(b.tile, to.index, probs, granule.probs);
  d_probs(b, granule, b.scratch.d_probs);
  const Vec<T> scale = splat(in.scale), kept_scale = splat(in.kept_scale);
  int at = 0;
#pragma GCC unroll 1
  for (int j = 0; j < kGranule; ++j) {
#pragma GCC unroll 3
    for (int i = 0; i < NV; ++i, at += kLanes<T>) {
      Vec<T> d_p = load(b.scratch.d_probs + at);
      if (weights) d_p += load(b.scratch.d_weights + at);
      if (drops) d_p = is_hidden(load(granule.probs + at)) ? Vec<T>{} : d_p * kept_scale;
      Vec<T> d_s = load(probs + at) * (d_p - b.delta[i]);
      if (kHides) d_s = hiding(j, i) ? Vec<T>{} : d_s;
      if (to.d_bias != nullptr) store(to.d_bias + at, load(to.d_bias + at) + d_s);
      if (granule.mod != nullptr) {
        store(to.d_scores + at, d_s);
        continue;
      }
      if (in.softcap > 0) d_s *= load(b.scratch.slopes + at);
      d_s = fma(d_s, scale, Vec<T>{});  // + 0: a product may be -0.0
      store(to.d_scores + at, kHides && hiding(j, i) ? splat(T{-0.0}) : d_s);
    }
  }
  if (granule.mod != nullptr) unmodify(b, granule, to.d_scores);
}

// Adds the weights' part over the granules that any row sees to delta.
template <class T, int NV>
__attribute__((noinline)) void add_weights_to_delta(Backward<T, NV>& b) {
  const AttentionTile<T>& in = b.in.in;
  T* kept = b.scratch.probs;
  const KeySpan seen = keys_seen_by(in);
  for (size_t key = seen.begin; key < seen.end; key += kGranule) {
    Granule<T> granule;
    if (!see_granule(b.tile, key, &granule)) continue;
    load_d_weights(b, key, granule.count);
    scores_again(b, &granule, kept);
    const Hiding<T, NV> hiding(b.tile, granule);
    probs_again<true>(b, granule, hiding, kept);
    if (in.dropout.threshold > 0) keep_pairs(b.tile, granule_index(b.in, key), kept, kept);
#pragma GCC unroll 1
    for (int j = 0; j < kGranule; ++j) {
#pragma GCC unroll 3
      for (int i = 0; i < NV; ++i) {
        const int at = (j * NV + i) * kLanes<T>;
        const Vec<T> weight = load(kept + at), d_w = load(b.scratch.d_weights + at);
        b.delta[i] = is_hidden(weight) ? b.delta[i] : fma(weight, d_w, b.delta[i]);
      }
    }
  }
}
