// What both module classes are: in-projections -> attention -> out-projection, on checked,
// batch-first views. Needs O((q_len + kv_len) * width) scratch, kept per thread for the next call,
// or in the training context.
//
//   q = query . Wq^T + bq   k = key . Wk^T + bk   v = value . Wv^T + bv     [batch, len, width]
//   heads = softmax(scale * q . k^T + masks) . v                            [batch, q_len, width]
//   out = heads . Wo^T + bo                                             [batch, q_len, embed_dim]
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <span>

#include <polyhead/attention.h>
#include <polyhead/tensor_view.h>
#include <polyhead/training.h>
#include "attention/attention_call.h"
#include "module/attention_parameters.h"
#include "module/heads/head_transform.h"

namespace polyhead {

struct ForwardInputs;
class CachedStep;
class ProjectedHeads;

inline constexpr size_t kMaxMasks = 3;  // of a module: padding, attn_mask, causal

struct ProjectedCall {
  ConstTensorView query = {};  // [batch, q_len, embed_dim]
  ConstTensorView key = {};    // [batch, kv_len, kdim]
  ConstTensorView value = {};  // [batch, kv_len, vdim]
  std::span<const Mask> masks = {};
  EmptyRow empty_rows = EmptyRow::kZero;
  WeightsMode weights_mode = WeightsMode::kNone;
  Dropout dropout = {};
  std::array<int64_t, 2> positions = {};  // of the first query, of the first key
  TensorView out = {};                    // [batch, q_len, embed_dim]
  TensorView weights = {};  // [batch, q_len, columns] or [batch, num_heads, q_len, columns]
};

// What a backward is given and where its results go. Undefined views: not wanted.
struct BackwardTargets {
  ConstTensorView d_out = {};                      // [batch, q_len, embed_dim]
  ConstTensorView d_weights = {};                  // as the call's weights
  std::array<TensorView, 3> d_rows = {};           // of query, key, value: [batch, len, features]
  std::array<TensorView, kMaxMasks> d_masks = {};  // as the call's masks
  ParameterTargets parameters = {};
  GradientMode mode = GradientMode::kOverwrite;  // of the parameters
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

  // A call whose query is its key and value, [B, len, embed_dim] or [1, total, embed_dim], as the
  // step says, which is run: positions and masks are the cache's. If something is thrown, it has
  // not changed.
  void run_cached(const ProjectedCall& call, const CachedStep& step) const;

  // As run, and backward can follow. `inputs` are what the call was made of: its masks are read
  // in place of call.masks. Dropout is as given here; the context's call counter goes on.
  void run_training(const ForwardInputs& inputs, ProjectedCall call, double dropout_p,
                    TrainingContext* context) const;
  // What the last run_training with this context was about. Throws InvalidArgument, `function`
  // leading the message, if it was not of this module with its present parameters.
  const ForwardInputs& trained_inputs(const TrainingContext& context, const char* function) const;
  // The context must be as said there, the targets of the right shapes. Nothing is written if
  // std::bad_alloc is thrown.
  void backward(const TrainingContext& context, const BackwardTargets& targets) const;

 private:
  struct Packed;
  class Backward;

  void project(Projection first, const ConstTensorView& x, const TensorView& heads) const;
  void project_all(const ProjectedCall& call, const ProjectedHeads& heads) const;
  AttentionCall attend(const ProjectedCall& call, const ProjectedHeads& heads) const;

  AttentionSizes sizes_;
  AttentionParameters parameters_;
  HeadTransform transform_;
  std::unique_ptr<Packed> packed_;
};

// The scale of the scores: 1 / sqrt(head_dim).
double attention_scale(const AttentionSizes& sizes);
// bias_k or bias_v, then the zero row, as [num_kv_heads, num_extra, head_dim]; undefined if there
// is neither.
Tensor extra_columns(const AttentionSizes& sizes, const ConstTensorView& bias);

}  // namespace polyhead
