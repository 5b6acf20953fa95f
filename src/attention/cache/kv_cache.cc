// The memory of a cache, and what is written to it.
#include <polyhead/kv_cache.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>

#include <polyhead/error.h>
#include "attention/cache/kv_cache_state.h"
#include "base/checked_math.h"
#include "base/message.h"
#include "base/thread_pool.h"

namespace polyhead {
namespace {

constexpr int64_t kMostPositions = std::numeric_limits<int32_t>::max();  // as a score_mod has it

[[noreturn]] void refuse(const char* function, const std::string& argument, const std::string& got,
                         const std::string& need) {
  throw InvalidArgument(message(function, ": ", argument, ": ", got, "; must be ", need));
}

void require_between(const char* name, int64_t n, int64_t least, int64_t most) {
  if (n >= least && n <= most) return;
  refuse("KvCache", message("config.", name), message("got ", n),
         message("between ", least, " and ", most));
}

KvCache::Config checked(KvCache::Config config) {
  if (config.dtype != DType::kFloat32 && config.dtype != DType::kFloat64) {
    refuse("KvCache", "config.dtype", message("got ", dtype_name(config.dtype)),
           "float32 or float64");
  }
  require_between("batch", config.batch, 1, kMostPositions);
  require_between("num_kv_heads", config.num_kv_heads, 1, kMostPositions);
  require_between("head_dim", config.head_dim, 1, kMostPositions);
  require_between("v_head_dim", config.v_head_dim, 0, kMostPositions);
  require_between("page_len", config.page_len, 32, kMostPositions);
  require_between("num_pages", config.num_pages, 1, kMostPositions);
  require_between("window", config.window, 0, kMostPositions);
  if (config.page_len % 32 != 0) {
    refuse("KvCache", "config.page_len", message("got ", config.page_len), "a multiple of 32");
  }
  if (config.v_head_dim == 0) config.v_head_dim = config.head_dim;
  return config;
}

// Not cleared: what is not appended is not read.
TensorView allocate_pages(const KvCache::Config& config, int64_t columns, AlignedBytes* memory) {
  const int64_t shape[] = {config.num_pages, config.num_kv_heads, config.page_len, columns};
  int64_t bytes = static_cast<int64_t>(dtype_bytes(config.dtype));
  bool fits = true;
  for (int64_t n : shape) fits = fits && checked_multiply(bytes, n, &bytes);
  if (!fits) {
    refuse("KvCache", "config", message(config.num_pages, " pages of more than 2^63 bytes"),
           "smaller");
  }
  *memory = allocate_aligned(static_cast<size_t>(bytes));
  return {memory->get(), config.dtype, shape};
}

// Rows [first, first + count) of [n, columns] to `to`, one after the other.
template <class T>
void copy_rows(const ConstTensorView& from, int64_t first, int64_t count, T* to) {
  const int64_t columns = from.size(1), row_stride = from.stride(0), step = from.stride(1);
  const T* row = static_cast<const T*>(from.data()) + first * row_stride;
  for (int64_t r = 0; r < count; ++r, row += row_stride, to += columns) {
    if (step == 1) {
      std::copy_n(row, columns, to);
    } else {
      for (int64_t c = 0; c < columns; ++c) to[c] = row[c * step];
    }
  }
}

// The first `count` rows of [n, columns], to the positions from `position` on of a sequence's head.
template <class T>
void write_positions(const TensorView& pages, const SequencePages& of, int64_t head,
                     int64_t position, int64_t count, const ConstTensorView& from) {
  const int64_t page_len = pages.size(2);
  for (int64_t done = 0; done < count;) {
    const int64_t at = position + done, row = at % page_len;
    const int64_t run = std::min(page_len - row, count - done);
    const int64_t page = of.pages[static_cast<size_t>(at / page_len - of.first_page)];
    T* to = static_cast<T*>(pages.data()) + page * pages.stride(0) + head * pages.stride(1) +
            row * pages.stride(2);
    copy_rows(from, done, run, to);
    done += run;
  }
}

class Append {
 public:
  Append(KvCache::State* state, const ConstTensorView& key, const ConstTensorView& value)
      : state_(*state), key_(key), value_(value) {}

  // key and value are [B', .., .., ..]; item n of them is sequence first + n.
  void run(int64_t first) const {
    check_room();
    num_threads();  // which may throw for what the environment says
    if (!state_.pool.grow(state_.counts)) refuse_pages();
    state_.follow_pool();
    const int64_t heads = state_.config.num_kv_heads;
    const auto write = [&](size_t task) {
      const auto item = static_cast<int64_t>(task) / heads,
                 head = static_cast<int64_t>(task) % heads;
      state_.config.dtype == DType::kFloat32 ? write_head<float>(first + item, item, head)
                                             : write_head<double>(first + item, item, head);
    };
    parallel_for(static_cast<size_t>(key_.size(0) * heads), write);
  }

 private:
  void check_room() const {
    for (int64_t n = 0; n < state_.config.batch; ++n) {
      const int64_t now = state_.pool.sequence(n).length;
      const int64_t count = state_.counts[static_cast<size_t>(n)];
      if (count <= kMostPositions - now) continue;
      refuse("KvCache::append", "key", message(count, " positions, with ", now, " in sequence ", n),
             message("at most ", kMostPositions, " together"));
    }
  }

  [[noreturn]] void refuse_pages() const {
    const int64_t free = state_.pool.free_pages();
    refuse("KvCache::append", "key",
           message("needs ", state_.pool.shortage(state_.counts) + free, " more pages"),
           message("at most the ", free, " of ", state_.config.num_pages, " that are free"));
  }

  template <class T>
  void write_head(int64_t sequence, int64_t item, int64_t head) const {
    const SequencePages& of = state_.pool.sequence(sequence);
    const int64_t count = state_.counts[static_cast<size_t>(sequence)];
    const int64_t position = of.length - count;
    write_positions<T>(state_.key, of, head, position, count, key_.select(0, item).select(0, head));
    write_positions<T>(state_.value, of, head, position, count,
                       value_.select(0, item).select(0, head));
  }

  KvCache::State& state_;
  const ConstTensorView &key_, &value_;
};

// [B', Hkv, n, columns] of the cache's dtype; n < 0: any.
void require_shape(const KvCache::Config& config, const char* name, const ConstTensorView& view,
                   int64_t batch, int64_t n, int64_t columns) {
  const bool fits = view.defined() && view.rank() == 4 && view.size(0) == batch &&
                    view.size(1) == config.num_kv_heads && (n < 0 || view.size(2) == n) &&
                    view.size(3) == columns;
  if (!fits) {
    const std::string len = n < 0 ? "n" : std::to_string(n);
    refuse("KvCache::append", name,
           view.defined() ? "shape is " + view.shape_string() : "not given",
           message("[", batch, ", ", config.num_kv_heads, ", ", len, ", ", columns, "]"));
  }
  if (view.dtype() != config.dtype) {
    refuse("KvCache::append", name, message("dtype is ", dtype_name(view.dtype())),
           message("the cache's ", dtype_name(config.dtype)));
  }
}

void require_operands(const KvCache::Config& config, const ConstTensorView& key,
                      const ConstTensorView& value, int64_t batch) {
  require_shape(config, "key", key, batch, -1, config.head_dim);
  require_shape(config, "value", value, batch, key.size(2), config.v_head_dim);
}

void read_lengths(const ConstTensorView& lengths, int64_t most, std::vector<int64_t>* counts) {
  const auto batch = static_cast<int64_t>(counts->size());
  if (lengths.rank() != 1 || lengths.size(0) != batch) {
    refuse("KvCache::append", "lengths", "shape is " + lengths.shape_string(),
           message("[", batch, "]"));
  }
  if (lengths.dtype() != DType::kInt32 && lengths.dtype() != DType::kInt64) {
    refuse("KvCache::append", "lengths", message("dtype is ", dtype_name(lengths.dtype())),
           "int32 or int64");
  }
  for (int64_t n = 0; n < batch; ++n) {
    const int64_t count = integer_at(lengths, n);
    if (count < 0 || count > most) {
      refuse("KvCache::append", message("lengths[", n, "]"), message("got ", count),
             message("between 0 and key's ", most));
    }
    (*counts)[static_cast<size_t>(n)] = count;
  }
}

void require_sequence(const char* function, const KvCache::Config& config, int64_t sequence) {
  if (sequence >= 0 && sequence < config.batch) return;
  refuse(function, "sequence", message("got ", sequence),
         message("between 0 and ", config.batch - 1));
}

}  // namespace

KvCache::State::State(const Config& given)
    : config(checked(given)),
      key(allocate_pages(config, config.head_dim, &key_memory)),
      value(allocate_pages(config, config.v_head_dim, &value_memory)),
      pool(config.batch, config.page_len, config.num_pages, config.window),
      cached(static_cast<size_t>(config.batch)),
      lengths(cached.size()),
      counts(cached.size()) {}

KvCache::KvCache(const Config& config) : state_(std::make_unique<State>(config)) {}
KvCache::~KvCache() = default;
KvCache::KvCache(KvCache&& other) noexcept = default;
KvCache& KvCache::operator=(KvCache&& other) noexcept = default;

const KvCache::Config& KvCache::config() const { return state_->config; }
int64_t KvCache::free_pages() const { return state_->pool.free_pages(); }

int64_t KvCache::length(int64_t sequence) const {
  require_sequence("KvCache::length", config(), sequence);
  return state_->pool.sequence(sequence).length;
}

int64_t KvCache::first_kept(int64_t sequence) const {
  require_sequence("KvCache::first_kept", config(), sequence);
  return state_->pool.first_kept(sequence);
}

void KvCache::append(const ConstTensorView& key, const ConstTensorView& value,
                     const ConstTensorView& lengths) {
  require_operands(config(), key, value, config().batch);
  std::fill(state_->counts.begin(), state_->counts.end(), key.size(2));
  if (lengths.defined()) read_lengths(lengths, key.size(2), &state_->counts);
  Append(state_.get(), key, value).run(0);
}

void KvCache::append(int64_t sequence, const ConstTensorView& key, const ConstTensorView& value) {
  require_sequence("KvCache::append", config(), sequence);
  for (const auto& [name, view] : {std::pair("key", &key), std::pair("value", &value)}) {
    if (!view->defined() || view->rank() != 3) {
      refuse("KvCache::append", name,
             view->defined() ? "shape is " + view->shape_string() : "not given",
             "a 3-dimensional tensor of one sequence");
    }
  }
  const ConstTensorView keys = key.unsqueezed(0), values = value.unsqueezed(0);
  require_operands(config(), keys, values, 1);
  std::fill(state_->counts.begin(), state_->counts.end(), 0);
  state_->counts[static_cast<size_t>(sequence)] = keys.size(2);
  Append(state_.get(), keys, values).run(sequence);
}

void KvCache::truncate(int64_t sequence, int64_t length) {
  require_sequence("KvCache::truncate", config(), sequence);
  const PagePool& pool = state_->pool;
  const int64_t now = pool.sequence(sequence).length, kept = pool.first_kept(sequence);
  if (length < 0 || length > now) {
    refuse("KvCache::truncate", "length", message("got ", length), message("between 0 and ", now));
  }
  if (length > 0 && pool.first_seen_from(length) < kept) {
    refuse("KvCache::truncate", "length",
           message("got ", length, ", which would see from ", pool.first_seen_from(length), " on"),
           message("0, or such that it sees from ", kept, " on: the rest is forgotten"));
  }
  state_->pool.truncate(sequence, length);
  state_->follow_pool();
}

void KvCache::reset(int64_t sequence) {
  require_sequence("KvCache::reset", config(), sequence);
  state_->pool.truncate(sequence, 0);
  state_->follow_pool();
}

void KvCache::reset() {
  for (int64_t n = 0; n < config().batch; ++n) state_->pool.truncate(n, 0);
  state_->follow_pool();
}

}  // namespace polyhead
