#include "attention/backward/backward_plans.h"

#include <polyhead/runtime.h>
#include "attention/backward/backward_tiles.h"
#include "attention/tiled_plans.h"

namespace polyhead {
namespace {

// Parts of d_query of all chunks but the first.
constexpr size_t kMostPartialBytes = size_t{32} << 20;

int64_t chunks_of(const AttentionCall& call) {
  return key_chunks_of(call) + (call.num_extra() > 0);
}

size_t query_bytes(const AttentionCall& call) {
  return static_cast<size_t>(call.batch() * call.num_heads() * call.q_len() * call.head_dim()) *
         dtype_bytes(call.query.dtype());
}

bool wants_all(const BackwardCall& backward) {
  return backward.d_query.defined() && backward.wants_keys();
}

bool keep_busy(int64_t tasks) {
  const int threads = num_threads();
  return threads == 1 || tasks >= 2 * threads;
}

int64_t keys_and_heads(const AttentionCall& call) {
  return call.num_sequences() * call.num_kv_heads();
}

// Each chunk's sums are added to what the chunks before left in d_query.
template <class T>
void by_head(const BackwardTiles<T>& tiles) {
  const AttentionCall& call = tiles.call;
  const auto run = [&](size_t task, std::byte* workspace) {
    const auto n = static_cast<int64_t>(task);
    const Sequence of = call.sequence(n / call.num_kv_heads());
    for (int64_t c = 0; c < tiles.num_chunks(); ++c) {
      const KeyRange keys = tiles.chunk(c, of);
      if (c > 0 && keys.begin == keys.end) continue;
      tiles.run_keys(n / call.num_kv_heads(), n % call.num_kv_heads(), keys, workspace,
                     [&](const Place& at, TileGradients<T>* to) {
                       to->query = tiles.d_query(at);
                       to->adds_to_query = c > 0;
                     });
    }
  };
  parallel_tasks(static_cast<size_t>(keys_and_heads(call)), tiles.flops(), tiles.workspace_bytes(),
                 run);
}

// Rows [B, H, L, D] of one chunk.
template <class T>
Strided<T> partial_at(const BackwardTiles<T>& tiles, int64_t chunk, const Place& at) {
  const AttentionCall& call = tiles.call;
  const Sequence of = call.sequence(at.sequence);
  const int64_t d = call.head_dim();
  const int64_t head = ((chunk - 1) * call.batch() + of.batch) * call.num_heads() + at.head;
  const int64_t row = head * call.q_len() + of.q_begin + at.row;
  return {reinterpret_cast<T*>(tiles.partials()) + row * d, d, 1};
}

template <class T>
void add_partials(const BackwardTiles<T>& tiles) {
  const AttentionCall& call = tiles.call;
  const auto run = [&](size_t n, std::byte*) {
    const TileTask task = tiles.tiling.task(static_cast<int64_t>(n), call.num_heads());
    const Place at = tiles.place_of(task);
    const Sequence of = call.sequence(at.sequence);
    const int64_t rows = std::min(tiles.tiling.rows, of.q_len - at.row);
    if (rows <= 0) return;
    const Strided<T> to = tiles.d_query(at);
    for (int64_t c = 1; c < tiles.num_chunks(); ++c) {
      if (!tiles.sees(of, task.tile, tiles.chunk(c, of))) continue;
      const T* part = partial_at(tiles, c, at).data;
      for (int64_t r = 0; r < rows; ++r) {
        T* row = to.data + r * to.row_stride;
        for (int64_t d = 0; d < call.head_dim(); ++d) row[d * to.column_stride] += *part++;
      }
    }
  };
  const double bytes =
      static_cast<double>(query_bytes(call)) * static_cast<double>(tiles.num_chunks());
  parallel_tasks(static_cast<size_t>(tiles.tiling.places() * call.num_heads()), bytes, 0, run);
}

template <class T>
void by_chunk(const BackwardTiles<T>& tiles) {
  const AttentionCall& call = tiles.call;
  const int64_t kv_heads = keys_and_heads(call);
  const auto run = [&](size_t task, std::byte* workspace) {
    const auto n = static_cast<int64_t>(task);
    const int64_t c = n / kv_heads, sequence = n % kv_heads / call.num_kv_heads();
    const KeyRange keys = tiles.chunk(c, call.sequence(sequence));
    if (c > 0 && keys.begin == keys.end) return;
    tiles.run_keys(sequence, n % call.num_kv_heads(), keys, workspace,
                   [&](const Place& at, TileGradients<T>* to) {
                     to->query = c == 0 ? tiles.d_query(at) : partial_at(tiles, c, at);
                   });
  };
  parallel_tasks(static_cast<size_t>(kv_heads * tiles.num_chunks()), tiles.flops(),
                 tiles.workspace_bytes(), run);
  add_partials(tiles);
}

template <class T>
void queries_alone(const BackwardTiles<T>& tiles) {
  const AttentionCall& call = tiles.call;
  const auto run = [&](size_t n, std::byte* workspace) {
    TileTask task = tiles.tiling.task(static_cast<int64_t>(n), call.num_heads());
    task.tile = task.tiles - 1 - task.tile;  // causal ones grow longer with the row
    const Place at = tiles.place_of(task);
    const Sequence of = call.sequence(at.sequence);
    if (at.row >= of.q_len) return;
    for (int64_t c = 0; c < tiles.num_chunks(); ++c) {
      const KeyRange keys = tiles.chunk(c, of);
      if (!tiles.sees(of, task.tile, keys)) continue;
      TileGradients<T> to;
      to.query = tiles.d_query(at);
      to.adds_to_query = c > 0;
      tiles.run(at, keys, to, workspace);
    }
  };
  parallel_tasks(static_cast<size_t>(tiles.tiling.places() * call.num_heads()), tiles.flops(),
                 tiles.workspace_bytes(), run);
}

// As many keys to a task as keep all threads busy: their sums do not feel it. Found once a call,
// for the number of threads may change while it runs.
struct KeyTasks {
  int64_t kv_heads, keys = kBackwardChunk, ranges = 0;
  bool extra;

  explicit KeyTasks(const AttentionCall& call)
      : kv_heads(keys_and_heads(call)), extra(call.num_extra() > 0) {
    const auto divide = [&] { ranges = (call.longest_kv_len() + keys - 1) / keys; };
    for (divide(); keys > 64 && !keep_busy(kv_heads * ranges); divide()) keys /= 2;
  }
  size_t count() const { return static_cast<size_t>(kv_heads * (ranges + extra)); }
};

template <class T>
void keys_alone(const BackwardTiles<T>& tiles, const KeyTasks& tasks) {
  const AttentionCall& call = tiles.call;
  const auto run = [&](size_t task, std::byte* workspace) {
    const auto n = static_cast<int64_t>(task);
    const int64_t begin = n / tasks.kv_heads * tasks.keys;
    const int64_t sequence = n % tasks.kv_heads / call.num_kv_heads();
    KeyRange range{begin, std::min(call.sequence(sequence).kv_len, begin + tasks.keys), false};
    if (n / tasks.kv_heads == tasks.ranges) range = {0, call.num_extra(), true};
    if (range.begin >= range.end) return;
    tiles.run_keys(sequence, n % call.num_kv_heads(), range, workspace,
                   [](const Place&, TileGradients<T>*) {});
  };
  parallel_tasks(tasks.count(), tiles.flops(), tiles.workspace_bytes(), run);
}

template <class T>
void in_two_phases(const BackwardTiles<T>& tiles) {
  const KeyTasks tasks(tiles.call);
  const bool keys = tiles.backward.wants_keys();
  if (keys) reserve_task_memory(tasks.count(), tiles.flops(), tiles.workspace_bytes());
  if (tiles.backward.d_query.defined()) queries_alone(tiles);
  if (keys) keys_alone(tiles, tasks);
}

// All memory is there before anything of a gradient is.
template <class T, class Body>
void run_plan_as(const BackwardCall& backward, size_t partial_bytes, const Body& body) {
  const BackwardTiles<T> tiles(backward, partial_bytes);
  reserve_mask_memory(tiles);
  body(tiles);
  tiles.sum_extra();
  tiles.sink_gradients();
  mask_gradients(tiles);
}

template <class Body>
void run_plan(const BackwardCall& backward, size_t partial_bytes, const Body& body) {
  if (backward.call.query.dtype() == DType::kFloat32) {
    run_plan_as<float>(backward, partial_bytes, body);
  } else {
    run_plan_as<double>(backward, partial_bytes, body);
  }
}

size_t partial_bytes(const AttentionCall& call) {
  return static_cast<size_t>(chunks_of(call) - 1) * query_bytes(call);
}

// Keys of stride 0 may be any number: the product could wrap.
bool partials_are_small(const AttentionCall& call) {
  const auto parts = static_cast<size_t>(chunks_of(call) - 1);
  return parts == 0 || query_bytes(call) <= kMostPartialBytes / parts;
}

// So many tasks are enough, or the plan was asked for by its name.
bool tasks_suffice(const AttentionCall& call, int64_t tasks) {
  return call.plan != nullptr || keep_busy(tasks);
}

}  // namespace

bool head_tasks_fit(const BackwardCall& backward) {
  const AttentionCall& call = backward.call;
  return tiled_supports(call) && wants_all(backward) && tasks_suffice(call, keys_and_heads(call));
}

bool chunk_tasks_fit(const BackwardCall& backward) {
  const AttentionCall& call = backward.call;
  return tiled_supports(call) && wants_all(backward) &&
         tasks_suffice(call, keys_and_heads(call) * chunks_of(call)) && partials_are_small(call);
}

bool two_phases_fit(const BackwardCall& backward) { return tiled_supports(backward.call); }

void run_head_tasks(const BackwardCall& backward) {
  run_plan(backward, 0, [](const auto& tiles) { by_head(tiles); });
}

void run_chunk_tasks(const BackwardCall& backward) {
  run_plan(backward, partial_bytes(backward.call), [](const auto& tiles) { by_chunk(tiles); });
}

void run_two_phases(const BackwardCall& backward) {
  run_plan(backward, 0, [](const auto& tiles) { in_two_phases(tiles); });
}

}  // namespace polyhead
