// Attention over a cache: an AttentionCall whose keys lie in pages, with the masks that a cache
// implies.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <polyhead/kv_cache.h>
#include "attention/attention_call.h"
#include "attention/cache/kv_cache_state.h"
#include "base/float_env.h"
#include "base/message.h"

namespace polyhead {
namespace {

[[noreturn]] void refuse(const std::string& argument, const std::string& got,
                         const std::string& need) {
  refuse_cache("attention_forward", argument, got, need);
}

bool compares_positions(const Mask& mask) {
  return mask.kind() == Mask::Kind::kCausal || mask.kind() == Mask::Kind::kWindow ||
         mask.kind() == Mask::Kind::kAlibi;
}

// Queries stand at their positions in the sequence: at its end, unless a number says where.
Mask at_positions(const Mask& mask) {
  if (!compares_positions(mask) || mask.offset().is_number()) return mask;
  constexpr auto kEnd = CausalAlign::kBottomRight;
  if (mask.kind() == Mask::Kind::kCausal) return Mask::causal(kEnd);
  if (mask.kind() == Mask::Kind::kAlibi) return Mask::alibi(mask.tensor(), kEnd);
  return Mask::window(mask.left(), mask.right(), kEnd);
}

// Where the caller's masks place the queries, which the cache's window goes by; at the end of their
// sequences if none does. A number is another place than the end, be it the end of one sequence.
QueryOffset place_of_queries(const std::vector<Mask>& masks) {
  std::optional<QueryOffset> place;
  for (size_t n = 0; n < masks.size(); ++n) {
    if (!compares_positions(masks[n])) continue;
    const QueryOffset next = at_positions(masks[n]).offset();
    const bool agrees =
        !place || (next.is_number() == place->is_number() && next.number() == place->number());
    if (!agrees) {
      refuse(message("masks[", n, "]"), "its offset is another than that of a mask before it",
             "the same for all, over a cache with a window");
    }
    place = next;
  }
  return place.value_or(CausalAlign::kBottomRight);
}

// The caller's masks, then each sequence's length and the cache's window.
std::vector<Mask> masks_over(const KvCache::State& cache, const AttentionOptions& options,
                             QueryOffset place) {
  std::vector<Mask> masks;
  masks.reserve(options.masks.size() + 2);
  for (const Mask& mask : options.masks) masks.push_back(at_positions(mask));
  masks.push_back(lengths_mask(cache));
  if (cache.config.window > 0) masks.push_back(window_mask(cache.config, place));
  return masks;
}

// What has no meaning with a cache, and what would be refused under names that the caller did not
// give.
void require_fit(const ConstTensorView& query, const KvCache::Config& config,
                 const AttentionOptions& options) {
  const bool packed = options.cu_seqlens_q.defined();
  const std::string batch = packed ? "1" : std::to_string(config.batch);
  const bool fits = query.defined() && query.rank() == 4 &&
                    (packed || query.size(0) == config.batch) && query.size(3) == config.head_dim;
  if (!fits) {
    refuse("query", query.defined() ? "shape is " + query.shape_string() : "not given",
           message("[", batch, ", H, L, ", config.head_dim, "] for this cache"));
  }
  if (query.dtype() != config.dtype) {
    refuse("query", message("dtype is ", dtype_name(query.dtype())),
           message("the cache's ", dtype_name(config.dtype)));
  }
  if (query.size(1) % config.num_kv_heads != 0) {
    refuse("query", message("num_heads is ", query.size(1)),
           message("a multiple of the cache's ", config.num_kv_heads));
  }
  if (options.cu_seqlens_k.defined()) refuse("cu_seqlens_k", "given, with a cache", "undefined");
  if (options.dropout_p != 0) {
    refuse("dropout_p", message("got ", options.dropout_p, ", with a cache"), "0");
  }
  for (size_t n = 0; n < options.masks.size(); ++n) {
    if (options.masks[n].kind() != Mask::Kind::kKeyLengths) continue;
    refuse(message("masks[", n, "]"), "key lengths, with a cache", "another mask: it has its own");
  }
}

// Queries are positions that have been appended, and see nothing that is forgotten.
void require_positions(const AttentionCall& call, const KvCache::State& cache, QueryOffset place) {
  const bool counts = std::any_of(call.masks.begin(), call.masks.end(), compares_positions) ||
                      call.score_mod.forward != nullptr;
  for (int64_t n = 0; n < cache.config.batch; ++n) {
    const int64_t q_len = call.sequence(n).q_len, length = cache.pool.sequence(n).length;
    if (q_len == 0 || call.num_heads() == 0) continue;
    if (length == 0 || (counts && q_len > length)) {
      refuse("query",
             message(q_len, " queries of sequence ", n, ", which has ", length, " positions"),
             "no more than these: append first");
    }
    const int64_t first = std::max<int64_t>(place.of(q_len, length), 0);
    const int64_t seen = cache.pool.first_seen_from(first);
    if (seen < cache.pool.first_kept(n)) {
      refuse(
          "query",
          message(q_len, " queries of sequence ", n, ", which see from position ", seen, " on"),
          message("those that see from ", cache.pool.first_kept(n), " on: the rest is forgotten"));
    }
  }
}

}  // namespace

void attention_forward(const ConstTensorView& query, const KvCache& cache,
                       const AttentionOptions& options, const AttentionOutputs& outputs) {
  DefaultFloatEnv env;
  const KvCache::State& state = *cache.state_;
  require_fit(query, state.config, options);
  const bool forgets = state.config.window > 0;
  const QueryOffset place = forgets ? place_of_queries(options.masks) : CausalAlign::kBottomRight;
  const std::vector<Mask> masks = masks_over(state, options, place);
  AttentionCall call = call_of(query, state.key, state.value, options);
  call.cached = state.cached;
  call.longest_cached = *std::max_element(state.lengths.begin(), state.lengths.end());
  call.masks = masks;
  call.outputs = outputs;
  validate(call, "attention_forward");
  require_positions(call, state, place);
  run_attention(call);
}

}  // namespace polyhead
