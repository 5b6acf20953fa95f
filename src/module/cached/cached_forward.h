// A step of a decoder: new tokens go through the module, their keys and values into a cache.
#pragma once

#include <polyhead/kv_cache.h>
#include <polyhead/multihead_attention.h>
#include "module/forward_inputs.h"
#include "module/projected_attention.h"

namespace polyhead {

// That of a cache for the module. Throws InvalidArgument unless it can have one.
KvCache::Config config_of_cache(const AttentionSizes& sizes, int64_t batch, int64_t num_pages);

// Query as [B, len, E]. Throws InvalidArgument unless the module can have a cache, this is one for
// it, and the query fits both.
ForwardInputs check_cached_inputs(const AttentionSizes& sizes, Layout layout,
                                  const ConstTensorView& query, KvCache* cache,
                                  const CachedForwardOptions& options);

// The step of such inputs. out as the caller's query. Throws InvalidArgument or std::bad_alloc, and
// nothing is written then.
void run_cached_forward(const ProjectedAttention& attention, const ForwardInputs& inputs,
                        KvCache* cache, const CachedForwardOptions& options, const TensorView& out);

}  // namespace polyhead
