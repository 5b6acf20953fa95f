// Eight keys on their way into the tile.

template <class T>
POLYHEAD_INLINE Granule<T> granule_at(const Strided<const T>& key, const Strided<const T>& value,
                                      size_t count) {
  Granule<T> granule;
  granule.count = at_most(count, kGranule);
  for (size_t j = 0; j < kGranule; ++j) {
    const size_t row = at_most(j, granule.count - 1);
    granule.rows[j] = key.data + static_cast<ptrdiff_t>(row) * key.row_stride;
  }
  granule.value = value.data;
  granule.has_limit = granule.count < kGranule;
  granule.limit = kGranule;
  return granule;
}

// What the masks leave of a granule, with scratch.bias pointing at their sum.
template <class T, int NV>
POLYHEAD_INLINE Visibility meet_masks(Tile<T, NV>& tile, size_t first, size_t count) {
  const HeadSequence& heads = tile.in.heads;
  if (!heads.keep_masks) return prepare_bias(tile, first, count);
  tile.scratch.bias = tile.scratch.kept_bias + first * Tile<T, NV>::kWidth;
  uint8_t& seen = tile.scratch.seen[first / kGranule];
  if (heads.first()) seen = static_cast<uint8_t>(prepare_bias(tile, first, count));
  return static_cast<Visibility>(seen);
}

// Whether distances alone change the scores of a granule, and in the open.
template <class T>
POLYHEAD_INLINE bool has_distances_alone(const AttentionTile<T>& in, ptrdiff_t first,
                                         Granule<T>* granule) {
  if (in.num_masks != 1 || in.masks->element != TileMask::Element::kDistance) return false;
  granule->from_first = in.masks->position - first;
  if (!distances_are_exact<T>(granule->from_first)) return false;
  granule->distances = in.masks;
  return true;
}

// Whether the caller's score_mod says that it hides all of a granule.
template <class T, int NV>
POLYHEAD_INLINE bool is_empty(const Tile<T, NV>& tile, const Granule<T>& granule) {
  const TileScoreMod* mod = granule.mod;
  if (mod == nullptr || mod->is_empty == nullptr) return false;
  return mod->is_empty(*mod, scores_of<T, NV>(tile, granule, nullptr));
}

// The granule at key `first`, and what the band and the masks leave of it. EMPTY granules are
// skipped (false), FULL ones stay in registers, PARTIAL ones meet their masks.
template <class T, int NV>
POLYHEAD_INLINE bool see_granule(Tile<T, NV>& tile, size_t first, Granule<T>* granule) {
  const AttentionTile<T>& in = tile.in;
  const KeyRun<T> run = keys_from(in, first);
  *granule = granule_at(run.key, run.value, in.band.end - first);
  granule->first_key = first;
  granule->mod = in.mod;
  if (is_empty(tile, *granule)) return false;
  const ptrdiff_t limit = in.band.last - static_cast<ptrdiff_t>(first);  // of position 0
  if (limit < kGranule - 1) {
    granule->has_limit = true;
    granule->limit = limit;
  }
  if (!cuts_front(in, first)) {
    if (in.num_masks == 0) return true;
    if (has_distances_alone(in, static_cast<ptrdiff_t>(first), granule)) return true;
  }
  const Visibility seen = meet_masks(tile, first, granule->count);
  granule->has_bias = seen != Visibility::kAll;
  granule->has_hidden = seen == Visibility::kSome;
  return seen != Visibility::kNone;
}
