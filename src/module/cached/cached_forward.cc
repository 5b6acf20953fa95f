#include "module/cached/cached_forward.h"

#include <algorithm>
#include <string>
#include <utility>

#include "attention/cache/cached_step.h"
#include "base/float_type.h"
#include "module/memory_plan.h"
#include "module/require.h"

namespace polyhead {
namespace {

constexpr AppendNames kNames{kMhaName, "query"};

// `given` leads the module that cannot have a cache.
void require_decoder(const AttentionSizes& sizes, const char* name, const char* given) {
  const Require require(kMhaName);
  if (sizes.num_extra() > 0) {
    require.fail(name, message(given, " a module with add_bias_kv or add_zero_attn"),
                 "for one without");
  }
  if (sizes.kdim == sizes.embed_dim && sizes.vdim == sizes.embed_dim) return;
  require.fail(name, message(given, " a module of kdim ", sizes.kdim, " and vdim ", sizes.vdim),
               message("for one whose tokens are query, key and value: ", sizes.embed_dim));
}

void require_fit(const AttentionSizes& sizes, const KvCache::Config& cache) {
  const Require require(kMhaName);
  const auto size = [&](const char* name, int64_t got, int64_t need) {
    if (got == need) return;
    require.fail("cache", message(name, " is ", got), message(need, ", as the module's"));
  };
  size("num_kv_heads", cache.num_kv_heads, sizes.num_kv_heads);
  size("head_dim", cache.head_dim, sizes.head_dim);
  size("v_head_dim", cache.v_head_dim, sizes.head_dim);
  if (cache.dtype == sizes.dtype) return;
  require.fail("cache", message("dtype is ", dtype_name(cache.dtype)),
               message(dtype_name(sizes.dtype), ", the module's"));
}

void require_batch(const ForwardInputs& inputs, const KvCache::Config& cache,
                   const CachedForwardOptions& options) {
  const Require require(kMhaName);
  if (!inputs.batched) {
    if (options.lengths.defined()) {
      require.fail("lengths", "given, with an unbatched query", "undefined");
    }
    if (options.sequence >= 0 && options.sequence < cache.batch) return;
    require.fail("sequence", message("got ", options.sequence),
                 message("between 0 and ", cache.batch - 1));
  }
  if (inputs.batch() != cache.batch) {
    require.fail("query", message("batch is ", inputs.batch()),
                 message(cache.batch, ", as the cache's"));
  }
  if (options.sequence != 0) {
    require.fail("sequence", message("got ", options.sequence, ", with a batched query"), "0");
  }
}

// The first rows of [rows, features], as many as `to` has.
void copy_rows(const ConstTensorView& from, const TensorView& to) {
  with_float_type(to.dtype(), [&](auto type) {
    using T = decltype(type);
    for (int64_t r = 0; r < to.size(0); ++r) {
      const T* in = static_cast<const T*>(from.data()) + r * from.stride(0);
      T* out = static_cast<T*>(to.data()) + r * to.stride(0);
      for (int64_t c = 0; c < to.size(1); ++c) out[c * to.stride(1)] = in[c * from.stride(1)];
    }
  });
}

void clear(const TensorView& rows) {
  with_float_type(rows.dtype(), [&](auto type) {
    using T = decltype(type);
    const int64_t columns = rows.size(1);
    for (int64_t i = 0; i < rows.numel(); ++i) {
      static_cast<T*>(rows.data())[i / columns * rows.stride(0) + i % columns * rows.stride(1)] = 0;
    }
  });
}

// A batch with tokens missing: those that are there, one sequence after the other.
class PackedTokens {
 public:
  PackedTokens(const ProjectedCall& call, const CachedStep& step) : step_(step), whole_(call) {
    MemoryPlan plan(call.out.dtype());
    const int64_t shape[] = {1, step.total(), call.out.size(2)};
    const int64_t in = plan.add({1, shape[1], shape[2]}), out = plan.add({1, shape[1], shape[2]});
    std::byte* memory = lease_.reserve(plan.bytes());
    in_ = TensorView(memory + in, call.out.dtype(), shape);
    out_ = TensorView(memory + out, call.out.dtype(), shape);
  }

  ProjectedCall gathered() const {
    for (int64_t n = 0; n < step_.num_sequences(); ++n) {
      copy_rows(whole_.query.select(0, n), rows(in_, n));
    }
    return {.query = in_, .key = in_, .value = in_, .out = out_};
  }
  void scatter() const {
    for (int64_t n = 0; n < step_.num_sequences(); ++n) {
      const TensorView to = whole_.out.select(0, n);
      const int64_t count = step_.count(n);
      copy_rows(rows(out_, n), to.narrow(0, 0, count));
      clear(to.narrow(0, count, to.size(0) - count));
    }
  }

 private:
  // Of [1, total, features], [count, features].
  TensorView rows(const TensorView& of, int64_t n) const {
    return step_.rows(of.unsqueezed(0), n).select(0, 0).select(0, 0);
  }

  const CachedStep& step_;
  const ProjectedCall& whole_;
  WorkspaceLease lease_;
  TensorView in_, out_;  // [1, total, embed_dim]
};

}  // namespace

KvCache::Config config_of_cache(const AttentionSizes& sizes, int64_t batch, int64_t num_pages) {
  require_decoder(sizes, "cache_config", "asked of");
  for (const auto& [name, n] : {std::pair("batch", batch), std::pair("num_pages", num_pages)}) {
    if (n >= 1 && n <= kMostPositions) continue;
    Require(kMhaName).fail(name, message("got ", n), message("between 1 and ", kMostPositions));
  }
  return {.batch = batch,
          .num_kv_heads = sizes.num_kv_heads,
          .head_dim = sizes.head_dim,
          .dtype = sizes.dtype,
          .num_pages = num_pages};
}

ForwardInputs check_cached_inputs(const AttentionSizes& sizes, Layout layout,
                                  const ConstTensorView& query, KvCache* cache,
                                  const CachedForwardOptions& options) {
  if (cache == nullptr) Require(kMhaName).fail("cache", "is null", "given");
  require_decoder(sizes, "cache", "given, to");
  require_fit(sizes, cache->config());
  const ForwardInputs inputs = check_mha_inputs(sizes, layout, query, query, query, {});
  require_batch(inputs, cache->config(), options);
  return inputs;
}

void run_cached_forward(const ProjectedAttention& attention, const ForwardInputs& inputs,
                        KvCache* cache, const CachedForwardOptions& options,
                        const TensorView& out) {
  const ProjectedCall call =
      complete_call(inputs, attention.sizes(), WeightsMode::kNone, out, {}, kMhaName);
  const int64_t len = inputs.q_len();
  const CachedStep step = inputs.batched ? CachedStep::of_all(cache, len, options.lengths, kNames)
                                         : CachedStep::of_one(cache, options.sequence, len, kNames);
  const bool missing = step.total() != inputs.batch() * len;
  if (step.total() == 0) {
    for (int64_t n = 0; n < inputs.batch(); ++n) clear(call.out.select(0, n));
  } else if (missing) {
    const PackedTokens tokens(call, step);
    attention.run_cached(tokens.gathered(), step);
    tokens.scatter();
  } else {
    attention.run_cached(call, step);
  }
}

}  // namespace polyhead
