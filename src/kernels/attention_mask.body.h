// Tensor masks: what they do to one granule, and their sum as a bias [8, W].

enum class Visibility { kNone, kSome, kAll };

// Calls use(key, row, number) for the granule's pairs under one mask.
template <class Stored, class T, class Use>
POLYHEAD_INLINE void for_each_pair(const TileMask& mask, size_t key, size_t count, size_t rows,
                                   const Use& use) {
  const auto* at =
      static_cast<const Stored*>(mask.data) + static_cast<ptrdiff_t>(key) * mask.key_stride;
  for (size_t j = 0; j < count; ++j, at += mask.key_stride) {
    const Stored* row = at;
    for (size_t r = 0; r < rows; ++r, row += mask.query_stride) use(j, r, *row);
  }
}

// How much of the granule a boolean mask leaves visible.
POLYHEAD_INLINE Visibility boolean_visibility(const TileMask& mask, size_t key, size_t count,
                                              size_t rows) {
  const bool hidden_if = mask.element == TileMask::Element::kHiddenIfTrue;
  if (mask.query_stride == 0) rows = 1;
  size_t set = 0;
  for_each_pair<uint8_t, uint8_t>(mask, key, count, rows,
                                  [&](size_t, size_t, uint8_t x) { set += x != 0; });
  const size_t all = rows * count;
  if (set != 0 && set != all) return Visibility::kSome;
  return (set == 0) == hidden_if ? Visibility::kAll : Visibility::kNone;
}

// bias += T(factor) * T(mask), rounded as torch does it: the product first, then the sum.
template <class Stored, class T, int NV>
POLYHEAD_INLINE void add_numbers(Tile<T, NV>& tile, const TileMask& mask, size_t key,
                                 size_t count) {
  constexpr size_t kWidth = Tile<T, NV>::kWidth;
  T* bias = tile.scratch.bias;
  const T factor = static_cast<T>(mask.factor);
  for_each_pair<Stored, T>(mask, key, count, tile.in.rows, [&](size_t j, size_t r, Stored x) {
    const T number = static_cast<T>(x);
    bias[j * kWidth + r] += factor == 1 ? number : factor * number;
  });
}

template <class T, int NV>
void add_mask(Tile<T, NV>& tile, const TileMask& mask, size_t key, size_t count) {
  switch (mask.element) {
    case TileMask::Element::kFloat32:
      return add_numbers<float>(tile, mask, key, count);
    case TileMask::Element::kFloat64:
      return add_numbers<double>(tile, mask, key, count);
    case TileMask::Element::kInt32:
      return add_numbers<int32_t>(tile, mask, key, count);
    case TileMask::Element::kInt64:
      return add_numbers<int64_t>(tile, mask, key, count);
    default:
      return add_numbers<uint8_t>(tile, mask, key, count);
  }
}

template <class T, int NV>
void hide_pairs(Tile<T, NV>& tile, const TileMask& mask, size_t key, size_t count) {
  constexpr size_t kWidth = Tile<T, NV>::kWidth;
  const bool hidden_if = mask.element == TileMask::Element::kHiddenIfTrue;
  T* bias = tile.scratch.bias;
  for_each_pair<uint8_t, T>(mask, key, count, tile.in.rows, [&](size_t j, size_t r, uint8_t x) {
    if ((x != 0) == hidden_if) bias[j * kWidth + r] = kMasked<T>;
  });
}

inline bool is_boolean(const TileMask& mask) {
  return mask.element >= TileMask::Element::kHiddenIfTrue;
}

// Lanes past the last row, and keys past the last, are hidden; the others start at 0.
template <class T, int NV>
void clear_bias(Tile<T, NV>& tile, size_t count) {
  constexpr size_t kWidth = Tile<T, NV>::kWidth;
  for (size_t j = 0; j < kGranule; ++j) {
    for (size_t r = 0; r < kWidth; ++r) {
      tile.scratch.bias[j * kWidth + r] = j < count && r < tile.in.rows ? T{0} : kMasked<T>;
    }
  }
}

// Whether every pair is masked by now.
template <class T, int NV>
bool all_masked(const Tile<T, NV>& tile) {
  bool visible = false;
  for (int n = 0; n < kGranule * NV; ++n) {
    const Vec<T> b = load(tile.scratch.bias + n * kLanes<T>);
    const Vec<T> seen = b == splat(kMasked<T>) ? Vec<T>{} : splat(T{1});
    visible |= any_greater(seen, Vec<T>{});
  }
  return !visible;
}

// Fills scratch.bias if the answer is kSome. Booleans come last: they hide whatever was added.
template <class T, int NV>
__attribute__((noinline)) Visibility prepare_bias(Tile<T, NV>& tile, size_t key, size_t count) {
  bool added = false, some[kMaxTileMasks] = {};
  const AttentionTile<T>& in = tile.in;
  for (int n = 0; n < in.num_masks; ++n) {
    if (!is_boolean(in.masks[n])) {
      added = true;
      continue;
    }
    const Visibility seen = boolean_visibility(in.masks[n], key, count, in.rows);
    if (seen == Visibility::kNone) return seen;
    some[n] = seen == Visibility::kSome;
    added |= some[n];
  }
  if (!added) return Visibility::kAll;
  clear_bias(tile, count);
  for (int n = 0; n < in.num_masks; ++n) {
    if (!is_boolean(in.masks[n])) add_mask(tile, in.masks[n], key, count);
  }
  for (int n = 0; n < in.num_masks; ++n) {
    if (some[n]) hide_pairs(tile, in.masks[n], key, count);
  }
  return all_masked(tile) ? Visibility::kNone : Visibility::kSome;
}
