// Tensor masks: what they do to one granule, and their sum as a bias [8, W].

// How much of a granule the masks leave visible; kBiased: all of it, with numbers added.
enum class Visibility { kNone, kSome, kBiased, kAll };

// The granule's pairs under one boolean mask, a byte each: 1 where the mask hides the pair. Byte j
// of a word is key j of its row.
inline constexpr uint64_t kAllHidden = 0x0101010101010101;

// A mask's rows from r on.
POLYHEAD_INLINE TileMask boolean_from_row(TileMask mask, size_t r) {
  const auto bytes_to = [&](const void* data, ptrdiff_t size) -> const void* {
    return static_cast<const uint8_t*>(data) + static_cast<ptrdiff_t>(r) * mask.query_stride * size;
  };
  switch (mask.element) {
    case TileMask::Element::kSegments32:
      mask.row_ids = bytes_to(mask.row_ids, sizeof(int32_t));
      return mask;
    case TileMask::Element::kSegments64:
      mask.row_ids = bytes_to(mask.row_ids, sizeof(int64_t));
      return mask;
    default:
      mask.data = bytes_to(mask.data, 1);
      return mask;
  }
}

// hidden_words of segments: what lies outside the ids of all rows is settled before any row is
// looked at.
template <class Id>
__attribute__((noinline)) Visibility segment_words(const TileMask& mask, size_t key, size_t count,
                                                   size_t rows, uint64_t* words) {
  Id ids[kGranule];
  const Id* from =
      static_cast<const Id*>(mask.data) + static_cast<ptrdiff_t>(key) * mask.key_stride;
  bool meets = false;
  for (size_t j = 0; j < count; ++j) {
    ids[j] = from[static_cast<ptrdiff_t>(j) * mask.key_stride];
    meets |= ids[j] >= mask.least_id && ids[j] <= mask.most_id;
  }
  if (!meets) return Visibility::kNone;
  const uint64_t valid = count == kGranule ? kAllHidden : kAllHidden >> (8 * (kGranule - count));
  const Id* row_ids = static_cast<const Id*>(mask.row_ids);
  uint64_t any = 0, all = valid;
  for (size_t r = 0; r < rows; ++r) {
    uint64_t word = 0;
    for (size_t j = 0; j < count; ++j) {
      const bool hides = ids[j] != row_ids[static_cast<ptrdiff_t>(r) * mask.query_stride];
      word |= uint64_t{hides} << (8 * j);
    }
    words[r] = word;
    any |= word;
    all &= word;
  }
  if (any == 0) return Visibility::kAll;
  return all == valid ? Visibility::kNone : Visibility::kSome;
}

// words[r] for the rows of the tile; returns how much the mask leaves visible of `count` keys.
template <int kWidth>
__attribute__((noinline)) Visibility hidden_words(const TileMask& mask, size_t key, size_t count,
                                                  size_t rows, uint64_t* words) {
  const uint64_t valid = count == kGranule ? kAllHidden : kAllHidden >> (8 * (kGranule - count));
  if (mask.element >= TileMask::Element::kSegments32) {
    for (size_t r = rows; r < kWidth; ++r) words[r] = valid;
    return mask.element == TileMask::Element::kSegments32
               ? segment_words<int32_t>(mask, key, count, rows, words)
               : segment_words<int64_t>(mask, key, count, rows, words);
  }
  const auto* row =
      static_cast<const uint8_t*>(mask.data) + static_cast<ptrdiff_t>(key) * mask.key_stride;
  const uint64_t flip = mask.element == TileMask::Element::kHiddenIfTrue ? 0 : valid;
  uint64_t any = 0, all = valid;
  const size_t distinct = mask.query_stride == 0 ? 1 : rows;
  for (size_t r = 0; r < distinct; ++r, row += mask.query_stride) {
    uint64_t word = 0;
    if (mask.key_stride == 1 && count == kGranule) {
      __builtin_memcpy(&word, row, sizeof word);
    } else {
      for (size_t j = 0; j < count; ++j) {
        word |= uint64_t{row[static_cast<ptrdiff_t>(j) * mask.key_stride]} << (8 * j);
      }
    }
    word |= word >> 4 & 0x0f0f0f0f0f0f0f0f;  // any non-zero byte is true
    word |= word >> 2 & 0x0303030303030303;
    word = ((word | (word >> 1 & kAllHidden)) & kAllHidden) ^ flip;
    words[r] = word;
    any |= word;
    all &= word;
  }
  for (size_t r = distinct; r < kWidth; ++r) words[r] = r < rows ? words[0] : valid;
  if (any == 0) return Visibility::kAll;
  return all == valid ? Visibility::kNone : Visibility::kSome;
}

// bias = -inf where the words say hidden.
template <class T, int NV>
POLYHEAD_INLINE void hide_pairs(Tile<T, NV>& tile, const uint64_t* words) {
  using Int = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  constexpr int kKeysPerWord = sizeof(Int), kWidth = Tile<T, NV>::kWidth;
  for (int first = 0; first < kGranule; first += kKeysPerWord) {
    Int part[kWidth];
    for (int r = 0; r < kWidth; ++r) part[r] = static_cast<Int>(words[r] >> (8 * first));
    for (int i = 0; i < NV; ++i) {
      using Bits = decltype(Vec<T>{} < Vec<T>{});
      Bits flags;
      __builtin_memcpy(&flags, part + i * kLanes<T>, sizeof flags);
      for (int j = 0; j < kKeysPerWord; ++j) {
        T* bias = tile.scratch.bias + (first + j) * kWidth + i * kLanes<T>;
        const Bits hidden = (flags >> (8 * j) & 1) != 0;
        store(bias, hidden ? splat(kMasked<T>) : load(bias));
      }
    }
  }
}

// How far a row stands from each of `count` keys.
template <class T>
POLYHEAD_INLINE void read_distances(const TileMask& mask, size_t row, size_t key, size_t count,
                                    T* to) {
  ptrdiff_t distance = mask.position + static_cast<ptrdiff_t>(row) - static_cast<ptrdiff_t>(key);
  for (size_t j = 0; j < count; ++j, --distance) {
    to[j] = static_cast<T>(distance < 0 ? -distance : distance);
  }
}

// The mask's numbers for one row and `count` keys, as T; of a bool, any non-zero byte is true, 1.
template <class T>
__attribute__((noinline)) void read_numbers(const TileMask& mask, size_t row, size_t key,
                                            size_t count, T* to) {
  const ptrdiff_t step = mask.key_stride;
  const ptrdiff_t first =
      static_cast<ptrdiff_t>(row) * mask.query_stride + static_cast<ptrdiff_t>(key) * step;
  const auto read = [&](const auto* from) {
    constexpr bool kIsBool = sizeof *from == 1;
    from += first;
    for (size_t j = 0; j < count; ++j, from += step) {
      to[j] = kIsBool ? static_cast<T>(*from != 0) : static_cast<T>(*from);
    }
  };
  switch (mask.element) {
    case TileMask::Element::kFloat32:
      return read(static_cast<const float*>(mask.data));
    case TileMask::Element::kFloat64:
      return read(static_cast<const double*>(mask.data));
    case TileMask::Element::kInt32:
      return read(static_cast<const int32_t*>(mask.data));
    case TileMask::Element::kInt64:
      return read(static_cast<const int64_t*>(mask.data));
    case TileMask::Element::kDistance:
      return read_distances(mask, row, key, count, to);
    default:
      return read(static_cast<const uint8_t*>(mask.data));
  }
}

// The numbers where they are, if they are T's; else nowhere.
template <class T>
POLYHEAD_INLINE Strided<const T> numbers_in_place(const TileMask& mask, size_t key) {
  const auto own = sizeof(T) == 4 ? TileMask::Element::kFloat32 : TileMask::Element::kFloat64;
  if (mask.element != own) return {};
  return {static_cast<const T*>(mask.data) + static_cast<ptrdiff_t>(key) * mask.key_stride,
          mask.query_stride, mask.key_stride};
}

// Whether T holds the distances of a tile's rows from a granule's keys without rounding.
template <class T>
POLYHEAD_INLINE bool distances_are_exact(ptrdiff_t from_first) {
  constexpr ptrdiff_t kLimit = sizeof(T) == 4 ? 1 << 23 : ptrdiff_t{1} << 52;
  return from_first > -kLimit && from_first < kLimit;
}

// The same as add_numbers does with what read_distances says, to numbers [8, vectors].
template <class T>
__attribute__((noinline)) void add_distances(const TileMask& mask, ptrdiff_t from_first,
                                             int vectors, T* numbers) {
  const Vec<T> factor = splat(static_cast<T>(mask.factor));
  for (int i = 0; i < vectors; ++i) {
    const Vec<T> row = iota<T>() + splat(static_cast<T>(from_first + i * kLanes<T>));
#pragma GCC unroll 1
    for (int j = 0; j < kGranule; ++j) {
      const Vec<T> distance = row - splat(static_cast<T>(j));
      T* to = numbers + (j * vectors + i) * kLanes<T>;
      store(to, load(to) + (distance < Vec<T>{} ? -distance : distance) * factor);
    }
  }
}

// bias += T(factor) * T(mask), rounded as torch does it: the product first, then the sum.
template <class T, int NV>
__attribute__((noinline)) void add_numbers(Tile<T, NV>& tile, const TileMask& mask, size_t key,
                                           size_t count) {
  constexpr size_t kWidth = Tile<T, NV>::kWidth;
  const ptrdiff_t from_first = mask.position - static_cast<ptrdiff_t>(key);
  if (mask.element == TileMask::Element::kDistance && distances_are_exact<T>(from_first)) {
    return add_distances(mask, from_first, NV, tile.scratch.bias);
  }
  T read[kWidth * kGranule];  // [rows, 8]
  Strided<const T> numbers = numbers_in_place<T>(mask, key);
  if (numbers.data == nullptr) {
    for (size_t r = 0; r < tile.in.rows; ++r) {
      read_numbers(mask, r, key, count, read + r * kGranule);
    }
    numbers = {read, kGranule, 1};
  }
  const T factor = static_cast<T>(mask.factor);
  for_each_column(rows_of(tile), numbers, count, [&](size_t j, size_t lane, Vec<T> column) {
    T* to = tile.scratch.bias + j * kWidth + lane;
    store(to, load(to) + (factor == 1 ? column : column * splat(factor)));
  });
}

POLYHEAD_INLINE bool is_boolean(const TileMask& mask) {
  return mask.element >= TileMask::Element::kHiddenIfTrue;
}

// Whether a row of the tile begins to see behind key `first`.
template <class T>
POLYHEAD_INLINE bool cuts_front(const AttentionTile<T>& in, size_t first) {
  const auto last = static_cast<ptrdiff_t>(position_of(in, in.rows - 1));
  return in.band.first + last > static_cast<ptrdiff_t>(first);
}

// bias = -inf for the keys before those that each row sees.
template <class T, int NV>
POLYHEAD_INLINE void hide_front(Tile<T, NV>& tile, size_t key) {
  const auto first = static_cast<T>(tile.in.band.first - static_cast<ptrdiff_t>(key));  // of row 0
  for (int i = 0; i < NV; ++i) {
    const Vec<T> begin = positions_of(tile.in, i) + splat(first);
    for (size_t j = 0; j < kGranule; ++j) {
      T* bias = tile.scratch.bias + j * Tile<T, NV>::kWidth + i * kLanes<T>;
      store(bias, begin > splat(static_cast<T>(j)) ? splat(kMasked<T>) : load(bias));
    }
  }
}

// Lanes past the last row, and keys past the last, are hidden; the others start at 0.
template <class T, int NV>
POLYHEAD_INLINE void clear_bias(Tile<T, NV>& tile, size_t count) {
  const Vec<T> masked = splat(kMasked<T>), last = splat(static_cast<T>(tile.in.rows) - 1);
  for (int i = 0; i < NV; ++i) {
    const Vec<T> row = iota<T>() + splat(static_cast<T>(i * kLanes<T>));
    const Vec<T> start = row > last ? masked : Vec<T>{};
    for (size_t j = 0; j < kGranule; ++j) {
      T* bias = tile.scratch.bias + j * Tile<T, NV>::kWidth + i * kLanes<T>;
      store(bias, j < count ? start : masked);
    }
  }
}

// What the bias hides by now.
template <class T, int NV>
POLYHEAD_INLINE Visibility seen_through(const Tile<T, NV>& tile) {
  Vec<T> highest = splat(kMasked<T>), lowest{};
#pragma GCC unroll 24
  for (int n = 0; n < kGranule * NV; ++n) {
    const Vec<T> bias = load(tile.scratch.bias + n * kLanes<T>);
    highest = bias == splat(kMasked<T>) ? highest : Vec<T>{};
    lowest = bias == splat(kMasked<T>) ? bias : lowest;
  }
  if (!any_greater(highest, splat(kMasked<T>))) return Visibility::kNone;
  return any_greater(Vec<T>{}, lowest) ? Visibility::kSome : Visibility::kBiased;
}

// Fills scratch.bias if the answer is kSome or kBiased. Booleans come last: they hide whatever was
// added.
template <class T, int NV>
__attribute__((noinline)) Visibility prepare_bias(Tile<T, NV>& tile, size_t key, size_t count) {
  constexpr int kWidth = Tile<T, NV>::kWidth;
  uint64_t words[kMaxTileMasks][kWidth];
  const AttentionTile<T>& in = tile.in;
  const bool cuts = cuts_front(in, key);
  bool changes = cuts, hides[kMaxTileMasks] = {};
  for (int n = 0; n < in.num_masks; ++n) {
    if (!is_boolean(in.masks[n])) {
      changes = true;
      continue;
    }
    const Visibility seen = hidden_words<kWidth>(in.masks[n], key, count, in.rows, words[n]);
    if (seen == Visibility::kNone) return seen;
    hides[n] = seen == Visibility::kSome;
    changes |= hides[n];
  }
  if (!changes) return Visibility::kAll;
  clear_bias(tile, count);
  for (int n = 0; n < in.num_masks; ++n) {
    if (!is_boolean(in.masks[n])) add_numbers(tile, in.masks[n], key, count);
  }
  for (int n = 0; n < in.num_masks; ++n) {
    if (hides[n]) hide_pairs(tile, words[n]);
  }
  if (cuts) hide_front(tile, key);
  return seen_through(tile);
}
