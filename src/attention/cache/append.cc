// What is written to a cache.
#include <algorithm>
#include <cstdint>

#include "attention/cache/kv_cache_state.h"
#include "base/thread_pool.h"

namespace polyhead {
namespace {

template <class T>
void copy_row(const T* from, int64_t columns, int64_t from_step, T* to, int64_t to_step) {
  if (from_step == 1 && to_step == 1) {
    std::copy_n(from, columns, to);
  } else {
    for (int64_t c = 0; c < columns; ++c) to[c * to_step] = from[c * from_step];
  }
}

// All of [n, columns], to the last n positions of a sequence's head in `pages`: state.key or
// state.value.
template <class T>
void write_positions(const TensorView& pages, int64_t page_len, const SequencePages& of,
                     int64_t head, const ConstTensorView& from) {
  const int64_t count = from.size(0), columns = from.size(1), of_block = pages.size(2);
  const T* row = static_cast<const T*>(from.data());
  for (int64_t at = of.length - count; at < of.length; ++at, row += from.stride(0)) {
    const int64_t page = of.pages[static_cast<size_t>(at / page_len - of.first_page)];
    const int64_t in_page = at % page_len, block = in_page / of_block;
    T* to = static_cast<T*>(pages.data()) + page * pages.stride(0) + head * pages.stride(1) +
            in_page % of_block * pages.stride(2) + block * columns * pages.stride(3);
    copy_row(row, columns, from.stride(1), to, pages.stride(3));
  }
}

}  // namespace

void require_room(const KvCache::State& state, const AppendNames& names) {
  for (int64_t n = 0; n < state.config.batch; ++n) {
    const int64_t now = state.pool.sequence(n).length, count = state.added.count(n);
    if (count <= kMostPositions - now) continue;
    refuse_cache(names.function, names.argument,
                 message(count, " positions, with ", now, " in sequence ", n),
                 message("at most ", kMostPositions, " together"));
  }
  const int64_t shortage = state.pool.shortage(state.added.counts());
  if (shortage <= 0) return;
  const int64_t free = state.pool.free_pages();
  refuse_cache(names.function, names.argument, message("needs ", shortage + free, " more pages"),
               message("at most the ", free, " of ", state.config.num_pages,
                       " that are free (reset a sequence, or make a cache with more num_pages)"));
}

void append_added(KvCache::State* state, const ConstTensorView& key, const ConstTensorView& value) {
  num_threads();  // which may throw for what the environment says
  state->pool.grow(state->added.counts());
  state->follow_pool();
  const int64_t heads = state->config.num_kv_heads;
  int64_t first = 0, end = state->config.batch;  // of the sequences that grow, which may be one
  while (first < end && state->added.count(first) == 0) ++first;
  while (first < end && state->added.count(end - 1) == 0) --end;
  const auto write_head = [&](size_t task) {
    const auto n = first + static_cast<int64_t>(task) / heads;
    const auto head = static_cast<int64_t>(task) % heads;
    const SequencePages& of = state->pool.sequence(n);
    const auto write = [&](const TensorView& pages, const ConstTensorView& from) {
      const ConstTensorView rows = state->added.rows(from, n).select(0, 0).select(0, head);
      pages.dtype() == DType::kFloat32
          ? write_positions<float>(pages, state->config.page_len, of, head, rows)
          : write_positions<double>(pages, state->config.page_len, of, head, rows);
    };
    write(state->key, key);
    write(state->value, value);
  };
  parallel_for(static_cast<size_t>((end - first) * heads), write_head);
}

}  // namespace polyhead
