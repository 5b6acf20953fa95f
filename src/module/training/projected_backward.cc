// The gradients of projected attention, from d_out back to the inputs:
//
//   forward:  y = x . W^T + b  (q, k, v)   heads = attention(q, k, v)   out = heads . Wo^T + bo
//   d_heads = d_out . Wo          d_Wo = d_out^T . heads     d_bo = sum over rows of d_out
//   d_q, d_k, d_v = the op's backward of d_heads, d_q and d_k then back through rotation and norm
//   d_x = d_y . W                 d_W = d_y^T . x            d_b = sum over rows of d_y
//
// d_q, d_k and d_v lie token by token side by side, [batch, len, width + 2 kv_width], so that
// projections that share their x or their d_x are one matrix product.
#include <algorithm>

#include "attention/attention_backward.h"
#include "base/float_env.h"
#include "module/linear_gradient.h"
#include "module/memory_plan.h"
#include "module/projected_state.h"
#include "module/require.h"
#include "module/training/gradient_views.h"

namespace polyhead {

class ProjectedAttention::Backward {
 public:
  Backward(const ProjectedAttention& module, const TrainingContext::State& state,
           const BackwardTargets& to)
      : sizes_(module.sizes_),
        packed_(*module.packed_),
        transform_(module.transform_),
        state_(state),
        to_(to),
        x_{state.inputs.query, state.inputs.key, state.inputs.value},
        plan_(sizes_.dtype) {}

  void run() {
    if (x_[0].size(0) * x_[0].size(1) == 0) return set_all_zero();
    WorkspaceLease lease;
    plan_memory();
    place(lease.reserve(plan_.bytes()));
    reserve_products();
    packed_.out.input_gradient(to_.d_out, d_heads_);
    if (needs_attention()) attention_backward();
    for (const size_t i : {0, 1}) pull_back(i);
    out_parameters();
    in_parameters();
    column_parameter(d_extra_key_, to_.parameters.bias_k);
    column_parameter(d_extra_value_, to_.parameters.bias_v);
    inputs();
  }

 private:
  static constexpr auto kAbsent = int64_t{-1};

  bool accumulates() const { return to_.mode == GradientMode::kAccumulate; }
  bool needs_parameters(size_t i) const {
    return to_.parameters.weight[i].defined() || to_.parameters.bias[i].defined();
  }
  bool needs(size_t i) const {
    const bool norm = i < 2 && to_.parameters.norm[i].defined();
    return needs_parameters(i) || to_.d_rows[i].defined() || norm;
  }
  bool needs_columns() const {
    return to_.parameters.bias_k.defined() || to_.parameters.bias_v.defined();
  }
  bool needs_attention() const {
    return needs(0) || needs(1) || needs(2) || needs_columns() ||
           std::ranges::any_of(to_.d_masks, [](const TensorView& d) { return d.defined(); });
  }

  // Without a query there is no output for the loss to depend on.
  void set_all_zero() const {
    for (const TensorView& d : to_.d_rows) set_zero(d);
    for (const TensorView& d : to_.d_masks) set_zero(d);
    if (accumulates()) return;
    const ParameterTargets& p = to_.parameters;
    for (const TensorView& d : p.weight) set_zero(d);
    for (const TensorView& d : p.bias) set_zero(d);
    for (const TensorView& d : p.norm) set_zero(d);
    for (const TensorView* d : {&p.bias_k, &p.bias_v, &p.out_weight, &p.out_bias}) set_zero(*d);
  }

  int64_t len(size_t i) const { return x_[i].size(1); }
  bool side_by_side() const { return len(0) == len(1); }

  void plan_memory() {
    const int64_t batch = x_[0].size(0);
    heads_at_ = plan_.add({batch, len(0), sizes_.width()});
    query_at_ = plan_.add({batch, len(0), sizes_.width_of(0, side_by_side() ? 3 : 1)});
    key_at_ = side_by_side() ? kAbsent : plan_.add({batch, len(1), sizes_.width_of(1, 2)});
    extra_at_ = plan_.add({2, sizes_.num_kv_heads, sizes_.num_extra(), sizes_.head_dim});
    for (size_t i = 0; sizes_.qk_norm && i < 2; ++i) {
      norm_at_[i] = plan_.add({HeadTransform::num_blocks(len(i)), sizes_.head_dim});
    }
    // What no query sees has d_y = 0 and may be NaN.
    const bool hides = !state_.inputs.masks.span().empty() &&
                       (needs_parameters(0) || needs_parameters(1) || needs_parameters(2));
    for (size_t i = 0; i < 3; ++i) {
      const bool seen = i > 0 && same_tensor(x_[i], x_[i - 1]);
      const bool copies = hides && !seen && !all_finite(x_[i]);
      used_at_[i] =
          seen ? used_at_[i - 1] : (copies ? plan_.add({batch, len(i), x_[i].size(2)}) : kAbsent);
      // All that add have the shape of the one they add to.
      if (adds(i) && sum_at_ == kAbsent) sum_at_ = plan_.add({batch, len(i), x_[i].size(2)});
    }
  }

  void place(std::byte* memory) {
    const int64_t batch = x_[0].size(0);
    const auto view = [&](int64_t at, std::initializer_list<int64_t> shape) {
      return TensorView(memory + at, sizes_.dtype, Shape(shape.begin(), shape.size()));
    };
    d_heads_ = view(heads_at_, {batch, len(0), sizes_.width()});
    d_query_ = view(query_at_, {batch, len(0), sizes_.width_of(0, side_by_side() ? 3 : 1)});
    if (!side_by_side()) d_key_value_ = view(key_at_, {batch, len(1), sizes_.width_of(1, 2)});
    if (sizes_.num_extra() > 0) {
      const TensorView extra =
          view(extra_at_, {2, sizes_.num_kv_heads, sizes_.num_extra(), sizes_.head_dim});
      d_extra_key_ = extra.select(0, 0);
      d_extra_value_ = extra.select(0, 1);
    }
    for (size_t i = 0; sizes_.qk_norm && i < 2; ++i) {
      d_norm_[i] = view(norm_at_[i], {HeadTransform::num_blocks(len(i)), sizes_.head_dim});
    }
    for (size_t i = 0; i < 3; ++i) {
      const auto shape = {batch, len(i), x_[i].size(2)};
      if (used_at_[i] != kAbsent) used_x_[i] = view(used_at_[i], shape);
      if (adds(i)) sum_ = view(sum_at_, shape);
    }
  }

  // Takes the memory of all products below, so that none fails after gradients have been written.
  void reserve_products() const {
    const int64_t batch = x_[0].size(0);
    size_t bytes = linear_weight_gradient_bytes(sizes_.dtype, batch * len(0), sizes_.width(),
                                                sizes_.embed_dim);
    for (size_t i = 0; i < 3; ++i) {
      if (to_.d_rows[i].defined()) packed_.in[sizes_.packed() ? 0 : i].prepare_input_gradient();
      if (!needs_parameters(i)) continue;
      const size_t all = linear_weight_gradient_bytes(sizes_.dtype, batch * len(i), x_[i].size(2),
                                                      sizes_.width_of(0, 3));
      bytes = std::max(bytes, all);
    }
    for (const int i : {0, 1}) {
      if (sizes_.transforms() && d_heads_of(i).defined()) {
        transform_.reserve_backward(d_heads_of(i));
      }
    }
    WorkspaceLease product, tasks;
    tasks.reserve(1);
    product.reserve(bytes);
  }

  // The gradients of `count` projections side by side, [batch, len, width_of(first, count)].
  TensorView d_projected(int first, int count) const {
    const int64_t begin = sizes_.begin(first), width = sizes_.width_of(first, count);
    if (side_by_side()) return d_query_.narrow(2, begin, width);
    return first == 0 ? d_query_ : d_key_value_.narrow(2, begin - sizes_.width(), width);
  }
  TensorView d_heads_of(int i) const {  // the same of one projection, by heads, if it is needed
    if (!needs(static_cast<size_t>(i))) return {};
    return rows_by_head(d_projected(i, 1), sizes_.head_dim);
  }

  void attention_backward() const;
  void pull_back(size_t i) const;

  void out_parameters() const {
    const ParameterTargets& p = to_.parameters;
    if (!p.out_weight.defined() && !p.out_bias.defined()) return;
    linear_weight_gradient(state_.rows, to_.d_out, p.out_weight, p.out_bias, accumulates());
  }

  void in_parameters() const {
    const auto &weight = to_.parameters.weight, &bias = to_.parameters.bias;
    const auto joins = [&](int a, int b) {
      const auto i = static_cast<size_t>(a), j = static_cast<size_t>(b);
      return same_tensor(x_[i], x_[j]) && adjoin(weight[i], weight[j]) && adjoin(bias[i], bias[j]);
    };
    for_each_run(joins, [&](int first, int count) {
      const auto i = static_cast<size_t>(first);
      if (!needs_parameters(i)) return;
      const TensorView d_y = d_projected(first, count);
      if (used_x_[i].defined()) copy_used_rows(x_[i], d_y, used_x_[i]);
      linear_weight_gradient(used_x_[i].defined() ? used_x_[i] : x_[i], d_y,
                             adjoined(weight[i], count), adjoined(bias[i], count), accumulates());
    });
  }

  // bias_k or bias_v is the first appended column: d_columns [num_kv_heads, extra, head_dim].
  void column_parameter(const TensorView& d_columns, const TensorView& to) const {
    if (!to.defined()) return;
    const int64_t shape[] = {sizes_.num_kv_heads, sizes_.head_dim};
    const int64_t strides[] = {sizes_.head_dim * to.stride(2), to.stride(2)};
    const TensorView by_head(to.data(), to.dtype(), shape, strides);
    const TensorView column = d_columns.select(1, 0);
    accumulates() ? add_elements(column, by_head) : copy_elements(column, by_head);
  }

  // Whether one product gives the gradients of the inputs i and i + 1.
  bool joins_next(size_t i) const {
    return sizes_.packed() && same_tensor(to_.d_rows[i], to_.d_rows[i + 1]);
  }
  // Whether the product that begins with d_rows[i] has to be added to an earlier one's.
  bool adds(size_t i) const {
    if (!to_.d_rows[i].defined() || (i > 0 && joins_next(i - 1))) return false;
    const auto earlier = std::span(to_.d_rows).first(i);
    return std::ranges::any_of(earlier,
                               [&](const TensorView& d) { return same_tensor(d, to_.d_rows[i]); });
  }

  void inputs() const {
    const auto joins = [&](int a, int) { return joins_next(static_cast<size_t>(a)); };
    for_each_run(joins, [&](int first, int count) {
      const auto i = static_cast<size_t>(first);
      const TensorView& d_x = to_.d_rows[i];
      if (!d_x.defined()) return;
      const TensorView& to = adds(i) ? sum_ : d_x;
      const PackedLinear& linear = packed_.in[sizes_.packed() ? 0 : i];
      linear.input_gradient(d_projected(first, count), to,
                            sizes_.packed() ? sizes_.begin(first) : 0);
      if (adds(i)) add_elements(sum_, d_x);
    });
  }

  const AttentionSizes& sizes_;
  const Packed& packed_;
  const HeadTransform& transform_;
  const TrainingContext::State& state_;
  const BackwardTargets& to_;
  std::array<ConstTensorView, 3> x_;
  MemoryPlan plan_;
  int64_t heads_at_ = 0, query_at_ = 0, key_at_ = 0, extra_at_ = 0, used_at_[3] = {};
  int64_t sum_at_ = kAbsent, norm_at_[2] = {};
  TensorView d_heads_;  // [batch, q_len, width]
  // [batch, q_len, width] and [batch, kv_len, 2 kv_width]; or all three in the first.
  TensorView d_query_, d_key_value_;
  TensorView d_extra_key_, d_extra_value_;  // [num_kv_heads, extra, head_dim]
  TensorView d_norm_[2];                    // of query and key, in parts: [blocks, head_dim]
  TensorView used_x_[3];  // x without rows that no one has used, where it is not finite
  TensorView sum_;        // what is added to a d_rows that has something already
};

void ProjectedAttention::Backward::attention_backward() const {
  BackwardCall backward{.call = state_.attention};
  backward.inputs = {.out = state_.attention.outputs.out,
                     .lse = state_.attention.outputs.lse,
                     .d_out = rows_by_head(d_heads_, sizes_.head_dim),
                     .d_weights = to_.d_weights,
                     .lse_rest = state_.attention.outputs.lse_rest};
  backward.d_query = d_heads_of(0);
  backward.d_key = d_heads_of(1);
  backward.d_value = d_heads_of(2);
  if (needs_columns()) {
    backward.d_extra_key = d_extra_key_;
    backward.d_extra_value = d_extra_value_;
  }
  backward.d_masks = std::span(to_.d_masks).first(state_.inputs.masks.span().size());
  run_attention_backward(backward);
}

// From the gradient of what the op read to that of what was projected, of query (0) or key (1).
void ProjectedAttention::Backward::pull_back(size_t i) const {
  const TensorView d_heads = d_heads_of(static_cast<int>(i));
  if (!sizes_.transforms() || !d_heads.defined()) return;
  const HeadsToTransform forward{
      state_.projected[i], {}, packed_.norm[i].view(), state_.inputs.positions[i]};
  transform_.run_backward({forward, d_heads, d_norm_[i]});
  const TensorView& to = to_.parameters.norm[i];
  if (!to.defined()) return;
  if (!accumulates()) set_zero(to);
  if (d_norm_[i].size(0) == 0) return;
  const TensorView sum = d_norm_[i].select(0, 0);
  for (int64_t block = 1; block < d_norm_[i].size(0); ++block) {
    add_elements(d_norm_[i].select(0, block), sum);
  }
  add_elements(sum, to);
}

const ForwardInputs& ProjectedAttention::trained_inputs(const TrainingContext& context,
                                                        const char* function) const {
  const bool filled = context.state_ && context.state_->version != 0;
  if (filled && context.state_->version == packed_->version) return context.state_->inputs;
  Require(function).fail("context",
                         filled ? "is of another module, or of parameters that have changed since"
                                : "holds no forward",
                         "of this module's forward with its present parameters");
}

void ProjectedAttention::backward(const TrainingContext& context,
                                  const BackwardTargets& targets) const {
  const DefaultFloatEnv env;
  Backward(*this, *context.state_, targets).run();
}

}  // namespace polyhead
