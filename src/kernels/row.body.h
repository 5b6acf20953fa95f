// Rows of a matrix in memory, to and from vectors.

POLYHEAD_INLINE size_t at_most(size_t n, size_t limit) { return n < limit ? n : limit; }

// n <= lanes elements, any column stride; the other lanes are 0.
template <class T>
POLYHEAD_INLINE Vec<T> load_row(const T* from, ptrdiff_t column_stride, size_t n) {
  if (column_stride == 1) return n == kLanes<T> ? load(from) : load_part(from, n);
  T row[kLanes<T>] = {};
  for (size_t c = 0; c < n; ++c) row[c] = from[static_cast<ptrdiff_t>(c) * column_stride];
  return load(row);
}

template <class T>
POLYHEAD_INLINE void store_row(T* to, ptrdiff_t column_stride, Vec<T> v, size_t n) {
  if (column_stride == 1) {
    if (n == kLanes<T>) return store(to, v);
    return store_part(to, v, n);
  }
  for (size_t c = 0; c < n; ++c) to[static_cast<ptrdiff_t>(c) * column_stride] = v[c];
}
