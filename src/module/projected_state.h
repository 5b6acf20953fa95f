// What the forward and the backward of projected attention share.
#pragma once

#include <algorithm>
#include <cstdint>

#include <polyhead/linear.h>
#include "attention/attention_call.h"
#include "base/workspace.h"
#include "module/forward_inputs.h"
#include "module/projected_attention.h"

namespace polyhead {

struct ProjectedAttention::Packed {
  uint64_t version = 0;  // no two of the process are the same
  PackedLinear in[3];    // the first is all three where they are packed
  PackedLinear out;
  Tensor extra_key, extra_value;  // [num_kv_heads, extra, head_dim]
  Tensor norm[2];                 // of query and key: [head_dim]
};

struct TrainingContext::State {
  uint64_t version = 0;  // of the Packed that filled it; 0: not filled
  Workspace memory;
  ForwardInputs inputs;
  // Reads `memory`, the module's extra columns and inputs.masks; not set if there are no queries.
  AttentionCall attention;
  TensorView rows;  // [batch, q_len, width]: the heads' outputs
  // Query and key as they were projected, [batch, heads, len, head_dim], if anything came after it.
  std::array<TensorView, 2> projected;
};

// Rows [batch, len, heads * head_dim] seen by head: [batch, heads, len, head_dim].
template <class View>
View rows_by_head(const View& rows, int64_t head_dim) {
  const int64_t shape[] = {rows.size(0), rows.size(2) / head_dim, rows.size(1), head_dim};
  const int64_t strides[] = {rows.stride(0), head_dim * rows.stride(2), rows.stride(1),
                             rows.stride(2)};
  return {rows.data(), rows.dtype(), shape, strides};
}

inline bool same_tensor(const ConstTensorView& a, const ConstTensorView& b) {
  return a.data() == b.data() && std::ranges::equal(a.shape(), b.shape()) &&
         std::ranges::equal(a.strides(), b.strides());
}

}  // namespace polyhead
