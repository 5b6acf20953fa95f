// Forward of the modules, from Python's arguments.
#pragma once

#include <nanobind/nanobind.h>
#include <polyhead/multihead_attention.h>

#include <array>

#include "kv_cache.h"

namespace polyhead::python {

namespace nb = nanobind;

// (out, weights or None), new numpy arrays. inputs: query, key, value, key_padding_mask, attn_mask;
// None: not given.
nb::object forward_mha(const MultiheadAttention& module, const std::array<nb::handle, 5>& inputs,
                       ForwardOptions options);

// inputs: q, k, v, mask.
nb::object forward_scratch(const FromScratchMultiHeadAttention& module,
                           const std::array<nb::handle, 4>& inputs);

// out of forward_cached: a new array, as query.
nb::object forward_cached_mha(const MultiheadAttention& module, nb::handle query,
                              SharedCache& cache, nb::handle lengths, int64_t sequence);

}  // namespace polyhead::python
