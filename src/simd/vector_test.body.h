// What the tests of the vector layer run in each region.
template <class T>
void exp2_all(const T* t, T* out, size_t n) {
  for (size_t i = 0; i < n; i += kLanes<T>) {
    const size_t count = n - i < kLanes<T> ? n - i : kLanes<T>;
    store_part(out + i, exp2_flushed(load_part(t + i, count)), count);
  }
}

// matrix [lanes, lanes], transposed in place; returns the number of lanes.
template <class T>
size_t transpose_square(T* matrix) {
  Vec<T> rows[kLanes<T>];
  for (int i = 0; i < kLanes<T>; ++i) rows[i] = load(matrix + i * kLanes<T>);
  transpose(rows);
  for (int i = 0; i < kLanes<T>; ++i) store(matrix + i * kLanes<T>, rows[i]);
  return kLanes<T>;
}
