// What both module classes are: in-projections -> attention -> out-projection, on checked,
// batch-first views. Needs O((q_len + kv_len) * width) scratch, kept per thread for the next call.
//
//   q = query . Wq^T + bq   k = key . Wk^T + bk   v = value . Wv^T + bv     [batch, len, width]
//   heads = softmax(scale * q . k^T + masks) . v                            [batch, q_len, width]
//   out = heads . Wo^T + bo                                                 [batch, q_len,
//   embed_dim]
#pragma once

#include <memory>
#include <span>

#include <polyhead/attention.h>
#include <polyhead/tensor_view.h>
#include "module/attention_parameters.h"

namespace polyhead {

struct ProjectedCall {
  ConstTensorView query = {};  // [batch, q_len, embed_dim]
  ConstTensorView key = {};    // [batch, kv_len, kdim]
  ConstTensorView value = {};  // [batch, kv_len, vdim]
  std::span<const Mask> masks = {};
  EmptyRow empty_rows = EmptyRow::kZero;
  WeightsMode weights_mode = WeightsMode::kNone;
  TensorView out = {};      // [batch, q_len, embed_dim]
  TensorView weights = {};  // [batch, q_len, columns] or [batch, num_heads, q_len, columns]
};

class ProjectedAttention {
 public:
  ProjectedAttention(const AttentionSizes& sizes, AttentionParameters parameters);
  ProjectedAttention(ProjectedAttention&&) noexcept;
  ~ProjectedAttention();

  const AttentionSizes& sizes() const { return sizes_; }
  const AttentionParameters& parameters() const { return parameters_; }
  AttentionParameters& parameters() { return parameters_; }
  // To be called when parameters() have changed.
  void repack();

  // The call must be valid. Safe from many threads; allocates nothing after the first call of a
  // shape. Throws std::bad_alloc, or InvalidArgument if the scratch has too many bytes to count.
  void run(const ProjectedCall& call) const;

 private:
  struct Packed;

  void project(Projection first, const ConstTensorView& x, const TensorView& heads) const;

  AttentionSizes sizes_;
  AttentionParameters parameters_;
  std::unique_ptr<Packed> packed_;
};

// The scale of the scores: 1 / sqrt(head_dim).
double attention_scale(const AttentionSizes& sizes);
// bias_k or bias_v, then the zero row, as [num_heads, num_extra, head_dim]; undefined if there is
// neither.
Tensor extra_columns(const AttentionSizes& sizes, const ConstTensorView& bias);

}  // namespace polyhead
