// The checks of a module's forward, and what they leave: batch-first views and a list of masks.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include <polyhead/multihead_attention.h>
#include "module/attention_parameters.h"
#include "module/projected_attention.h"

namespace polyhead {

// Holds its masks in place: a forward must not allocate.
class MaskList {
 public:
  void add(const Mask& mask) { masks_[count_++] = mask; }
  std::span<const Mask> span() const { return {masks_.data(), count_}; }

 private:
  std::array<Mask, kMaxMasks> masks_{Mask::causal(), Mask::causal(), Mask::causal()};
  size_t count_ = 0;
};

struct ForwardInputs {
  ConstTensorView query, key, value;            // [batch, len, features]
  MaskList masks;                               // key_padding_mask's first, then attn_mask's
  ConstTensorView attn_mask, key_padding_mask;  // as given; from scratch: its mask is attn_mask,
  bool aligns_mask = false;                     // which broadcasts right-aligned
  bool batched = true;
  Layout layout = Layout::kBatchFirst;
  int64_t columns = 0;                       // of the weights: kv_len and the appended ones
  WeightsMode weights = WeightsMode::kNone;  // what is returned
  std::array<int64_t, 2> positions{};        // of the first query, of the first key

  int64_t batch() const { return query.size(0); }
  int64_t q_len() const { return query.size(1); }
  int64_t kv_len() const { return key.size(1); }
};

// All throw InvalidArgument with a message that says what was got and what is needed.
ForwardInputs check_mha_inputs(const AttentionSizes& sizes, Layout layout,
                               const ConstTensorView& query, const ConstTensorView& key,
                               const ConstTensorView& value, const ForwardOptions& options);
ForwardInputs check_scratch_inputs(const AttentionSizes& sizes, const ConstTensorView& q,
                                   const ConstTensorView& k, const ConstTensorView& v,
                                   const ConstTensorView& mask);

// Of a checked configuration, and of a module.
AttentionSizes sizes_of(const MultiheadAttention::Config& config);
AttentionSizes sizes_of(const FromScratchMultiHeadAttention& module);

// Shapes of the results, as the caller sees them.
struct ShapeBuffer {
  std::array<int64_t, 4> sizes{};
  size_t rank = 0;

  operator Shape() const { return {sizes.data(), rank}; }  // NOLINT(google-explicit-constructor)
};
// Rows of a given length and number of features: the query's, the key's, the value's.
ShapeBuffer rows_shape(const ForwardInputs& inputs, int64_t len, int64_t features);
ShapeBuffer out_shape(const ForwardInputs& inputs, const AttentionSizes& sizes);
ShapeBuffer weights_shape(const ForwardInputs& inputs, const AttentionSizes& sizes,
                          WeightsMode mode);

// Such rows as [batch, len, features].
template <class View>
View batch_first(const View& rows, const ForwardInputs& inputs) {
  if (!inputs.batched) return rows.unsqueezed(0);
  return inputs.layout == Layout::kSequenceFirst ? rows.transposed(0, 1) : rows;
}

// Checks the caller's outputs and completes the call; `inputs` must outlive it.
ProjectedCall complete_call(const ForwardInputs& inputs, const AttentionSizes& sizes,
                            WeightsMode mode, const TensorView& out, const TensorView& weights,
                            const char* function);

inline constexpr const char* kMhaName = "MultiheadAttention";
inline constexpr const char* kScratchName = "FromScratchMultiHeadAttention";

}  // namespace polyhead
