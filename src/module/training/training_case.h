// Training steps for tests: a module of any options with inputs, masks and cotangents, all drawn
// from a seed, and the gradients that came of it.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <polyhead/multihead_attention.h>
#include "module/module_test_tools.h"
#include "module/training/module_backward_reference.h"

namespace polyhead::oracle {

enum class Sharing { kNone, kKeyValue, kAll };  // which inputs are one tensor
enum class MaskKind { kNone, kBool, kFloat };

struct TrainingSpec {
  DType dtype = DType::kFloat32;
  int64_t batch = 2, q_len = 5, kv_len = 7, heads = 2, head_dim = 4;
  int64_t kdim = 0, vdim = 0;  // 0: embed_dim
  int64_t kv_heads = 0;        // 0: heads
  int64_t embed = 0;           // 0: heads * head_dim
  bool qk_norm = false;
  double qk_norm_eps = 1e-6;
  Rope rope = {};
  int64_t query_position = 0, key_position = 0;
  bool bias = true, bias_kv = false, zero_attn = false;
  Layout layout = Layout::kBatchFirst;
  bool unbatched = false;  // then batch is 1
  Sharing sharing = Sharing::kNone;
  MaskKind attn_mask = MaskKind::kNone, padding = MaskKind::kNone;
  int attn_rank = 2;        // 2: [L, S], 3: [B*H, L, S], 4: [1|B, 1|H, 1|L, 1|S]
  bool hides_rows = false;  // the attn_mask hides query 0 from all keys, the padding item 0
  bool causal = false;
  CausalAlign align = CausalAlign::kTopLeft;
  WeightsMode weights = WeightsMode::kNone;
  EmptyRow empty_rows = EmptyRow::kZero;
  double dropout = 0;
  double deviation = 1;  // of the inputs
  uint64_t seed = 1;

  int64_t embed_dim() const { return embed != 0 ? embed : heads * head_dim; }
  std::string describe() const;
};

// Every option by chance; float sizes small enough for the reference.
TrainingSpec random_training_spec(uint64_t seed, DType dtype);

// What one step gave, everything in the caller's shapes.
struct TrainingResult {
  MultiheadAttention::Result forward;
  Tensor d_query, d_key, d_value, d_attn_mask, d_padding;  // undefined: no such gradient
  ParameterGradients parameters;

  // Each with its name; inputs first.
  std::vector<std::pair<std::string, ConstTensorView>> gradients() const;
};

class TrainingProblem {
 public:
  explicit TrainingProblem(const TrainingSpec& spec);

  ForwardOptions options() const;
  OutputGradients cotangents() const { return {d_out.view(), d_weights.view()}; }
  ReferenceStep reference_step() const;
  InputGradients targets(TrainingResult* result) const;  // memory for every gradient there is

  TrainingResult run() const;
  TrainingResult run(TrainingContext* context) const;

  TrainingSpec spec;
  MultiheadAttention module;
  Tensor query, key, value;  // where shared, only the first is defined
  Tensor attn_mask, padding;
  Tensor d_out, d_weights;  // d_weights undefined without weights
  DropoutDraw dropout = {.seed = 11, .call = 3};

  ConstTensorView key_view() const { return key.defined() ? key.view() : query.view(); }
  ConstTensorView value_view() const { return value.defined() ? value.view() : key_view(); }

 private:
  Tensor rows(int64_t len, int64_t features, uint64_t seed) const;
  void draw_masks();
};

}  // namespace polyhead::oracle
