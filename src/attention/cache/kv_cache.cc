// A cache and its memory.
#include <polyhead/kv_cache.h>

#include <cstdint>
#include <string>

#include <polyhead/error.h>
#include "attention/cache/kv_cache_state.h"
#include "base/checked_math.h"
#include "base/message.h"
#include "kernels/attention_forward.h"

namespace polyhead {
namespace {

constexpr AppendNames kAppendedKey{"KvCache::append", "key"};

void require_between(const char* name, int64_t n, int64_t least, int64_t most) {
  if (n >= least && n <= most) return;
  refuse_cache("KvCache", message("config.", name), message("got ", n),
               message("between ", least, " and ", most));
}

KvCache::Config checked(KvCache::Config config) {
  if (config.dtype != DType::kFloat32 && config.dtype != DType::kFloat64) {
    refuse_cache("KvCache", "config.dtype", message("got ", dtype_name(config.dtype)),
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
    refuse_cache("KvCache", "config.page_len", message("got ", config.page_len),
                 "a multiple of 32");
  }
  if (config.v_head_dim == 0) config.v_head_dim = config.head_dim;
  return config;
}

// Not cleared: attention scores whole blocks, and masks what was not appended.
TensorView allocate_pages(const KvCache::Config& config, int64_t columns, PageMemory* memory) {
  const int64_t shape[] = {config.num_pages, config.num_kv_heads, config.page_len, columns};
  int64_t bytes = static_cast<int64_t>(dtype_bytes(config.dtype));
  bool fits = true;
  for (int64_t n : shape) fits = fits && checked_multiply(bytes, n, &bytes);
  if (!fits) {
    refuse_cache("KvCache", "config", message(config.num_pages, " pages take 2^63 bytes or more"),
                 "smaller");
  }
  *memory = allocate_page_memory(static_cast<size_t>(bytes));
  return {memory->get(), config.dtype, shape};
}

// [B, Hkv, n, columns] of the cache's dtype, for one sequence without B; n < 0: any.
void require_shape(const KvCache::Config& config, const char* name, const ConstTensorView& view,
                   bool is_one, int64_t n, int64_t columns) {
  const int rank = is_one ? 3 : 4;
  const bool fits = view.defined() && view.rank() == rank &&
                    (is_one || view.size(0) == config.batch) &&
                    view.size(rank - 3) == config.num_kv_heads &&
                    (n < 0 || view.size(rank - 2) == n) && view.size(rank - 1) == columns;
  if (!fits) {
    const std::string batch = is_one ? "" : message(config.batch, ", ");
    const std::string len = n < 0 ? "n" : std::to_string(n);
    refuse_cache("KvCache::append", name,
                 view.defined() ? "shape is " + view.shape_string() : "not given",
                 message("[", batch, config.num_kv_heads, ", ", len, ", ", columns, "]"));
  }
  if (view.dtype() != config.dtype) {
    refuse_cache("KvCache::append", name, message("dtype is ", dtype_name(view.dtype())),
                 message("the cache's ", dtype_name(config.dtype)));
  }
}

void require_operands(const KvCache::Config& config, const ConstTensorView& key,
                      const ConstTensorView& value, bool is_one) {
  require_shape(config, "key", key, is_one, -1, config.head_dim);
  require_shape(config, "value", value, is_one, key.size(key.rank() - 2), config.v_head_dim);
}

void require_sequence(const char* function, const KvCache::Config& config, int64_t sequence) {
  if (sequence >= 0 && sequence < config.batch) return;
  refuse_cache(function, "sequence", message("got ", sequence),
               message("between 0 and ", config.batch - 1));
}

// Keys of a page, by blocks: see State.
TensorView in_blocks(const TensorView& pages) {
  const int64_t of_head = pages.stride(1);
  constexpr auto kBlock = static_cast<int64_t>(kKeyBlock);
  const int64_t shape[] = {pages.size(0), pages.size(1), kBlock, of_head / kBlock};
  const int64_t strides[] = {pages.stride(0), of_head, 1, kBlock};
  return {pages.data(), pages.dtype(), shape, strides};
}

}  // namespace

KvCache::State::State(const Config& given)
    : config(checked(given)),
      key(in_blocks(allocate_pages(config, config.head_dim, &key_memory))),
      value(allocate_pages(config, config.v_head_dim, &value_memory)),
      pool(config.batch, config.page_len, config.num_pages, config.window),
      cached(static_cast<size_t>(config.batch)),
      lengths(cached.size()),
      added(config.batch) {}

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
  require_operands(config(), key, value, false);
  state_->added.count_all(key.size(2), lengths, kAppendedKey);
  require_room(*state_, kAppendedKey);
  append_added(state_.get(), key, value);
}

void KvCache::append(int64_t sequence, const ConstTensorView& key, const ConstTensorView& value) {
  require_sequence("KvCache::append", config(), sequence);
  require_operands(config(), key, value, true);
  const ConstTensorView keys = key.unsqueezed(0), values = value.unsqueezed(0);
  state_->added.count_one(sequence, keys.size(2));
  require_room(*state_, kAppendedKey);
  state_->added.pack();
  append_added(state_.get(), keys, values);
}

void KvCache::truncate(int64_t sequence, int64_t length) {
  require_sequence("KvCache::truncate", config(), sequence);
  const PagePool& pool = state_->pool;
  const int64_t now = pool.sequence(sequence).length, kept = pool.first_kept(sequence);
  if (length < 0 || length > now) {
    refuse_cache("KvCache::truncate", "length", message("got ", length),
                 message("between 0 and ", now));
  }
  if (length > 0 && pool.first_seen_from(length) < kept) {
    refuse_cache(
        "KvCache::truncate", "length",
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
