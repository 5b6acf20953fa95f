#include "module/projected_attention.h"

#include <atomic>
#include <cmath>
#include <cstring>
#include <utility>

#include "attention/cache/cached_step.h"
#include "base/float_env.h"
#include "module/memory_plan.h"
#include "module/projected_state.h"

namespace polyhead {
namespace {

uint64_t next_version() {
  static std::atomic<uint64_t> last{0};
  return ++last;
}

}  // namespace

double attention_scale(const AttentionSizes& sizes) {
  return 1 / std::sqrt(static_cast<double>(sizes.head_dim));
}

Tensor extra_columns(const AttentionSizes& sizes, const ConstTensorView& bias) {
  const int64_t extra = sizes.num_extra();
  if (extra == 0) return {};
  const DType dtype = bias.defined() ? bias.dtype() : sizes.dtype;
  Tensor columns(dtype, {sizes.num_kv_heads, extra, sizes.head_dim});
  if (!bias.defined()) return columns;
  const size_t head_bytes = static_cast<size_t>(sizes.head_dim) * dtype_bytes(dtype);
  const auto* from = static_cast<const std::byte*>(bias.data());
  auto* to = static_cast<std::byte*>(columns.data());
  for (size_t h = 0; h < static_cast<size_t>(sizes.num_kv_heads); ++h) {
    std::memcpy(to + h * static_cast<size_t>(extra) * head_bytes, from + h * head_bytes,
                head_bytes);
  }
  return columns;
}

ProjectedAttention::ProjectedAttention(const AttentionSizes& sizes, AttentionParameters parameters)
    : sizes_(sizes), parameters_(std::move(parameters)), transform_(sizes) {
  repack();
}
ProjectedAttention::ProjectedAttention(ProjectedAttention&&) noexcept = default;
ProjectedAttention::~ProjectedAttention() = default;

void ProjectedAttention::repack() {
  Tensor extra_key = extra_columns(sizes_, parameters_.bias_k.view());
  Tensor extra_value = extra_columns(sizes_, parameters_.bias_v.view());
  Tensor q_norm = parameters_.q_norm_weight, k_norm = parameters_.k_norm_weight;
  if (!packed_) packed_ = std::make_unique<Packed>();
  if (sizes_.packed()) {
    packed_->in[0].assign(parameters_.in_proj_weight, parameters_.in_proj_bias.view());
  }
  for (int i = 0; !sizes_.packed() && i < 3; ++i) {
    const auto of = static_cast<Projection>(i);
    packed_->in[i].assign(parameters_.separate_weight(of),
                          part_of(std::as_const(parameters_.in_proj_bias).view(), sizes_, of));
  }
  packed_->out.assign(parameters_.out_proj_weight, parameters_.out_proj_bias.view());
  packed_->extra_key = std::move(extra_key);
  packed_->extra_value = std::move(extra_value);
  packed_->norm[0] = std::move(q_norm);
  packed_->norm[1] = std::move(k_norm);
  packed_->version = next_version();
}

// Memory of one call. Inputs that are the same tensor are read once, by one product over the packed
// rows: the heads of their projections stand together.
class ProjectedHeads {
 public:
  // `keep`: what a backward needs.
  ProjectedHeads(const ProjectedCall& call, const AttentionSizes& sizes, bool keep)
      : sizes_(sizes),
        one_kv_(sizes.packed() && same_tensor(call.key, call.value)),
        one_qkv_(one_kv_ && same_tensor(call.query, call.key)),
        batch_(call.query.size(0)),
        q_len_(call.query.size(1)),
        kv_len_(call.key.size(1)),
        plan_(sizes.dtype) {
    const int64_t heads = sizes.num_heads, d = sizes.head_dim;
    places_[0] = plan_.add({batch_, q_heads(), q_len_, d});
    places_[1] = plan_.add({batch_, k_heads(), kv_len_, d});
    places_[2] = plan_.add({batch_, v_heads(), kv_len_, d});
    places_[3] = plan_.add({batch_, q_len_, heads * d});
    if (!keep) return;
    places_[4] = plan_.add({2, batch_, heads, q_len_});
    if (!sizes.qk_norm) return;  // whose gradient needs what went into it
    places_[5] = plan_.add({batch_, heads, q_len_, d});
    places_[6] = plan_.add({batch_, sizes.num_kv_heads, kv_len_, d});
  }

  size_t bytes() const { return plan_.bytes(); }

  // `memory` has bytes().
  void place(std::byte* memory) {
    const int64_t heads = sizes_.num_heads, d = sizes_.head_dim;
    q = heads_at(memory + places_[0], q_heads(), q_len_);
    k = heads_at(memory + places_[1], k_heads(), kv_len_);
    v = heads_at(memory + places_[2], v_heads(), kv_len_);
    const int64_t rows_shape[] = {batch_, q_len_, heads * d};
    rows = TensorView(memory + places_[3], sizes_.dtype, rows_shape);
    transformed = {query(), key()};
    if (places_[5] >= 0) {
      transformed = {heads_at(memory + places_[5], heads, q_len_),
                     heads_at(memory + places_[6], sizes_.num_kv_heads, kv_len_)};
    }
    if (places_[4] < 0) return;
    const int64_t lse_shape[] = {2, batch_, heads, q_len_};
    const TensorView both(memory + places_[4], sizes_.dtype, lse_shape);
    lse = both.select(0, 0);
    lse_rest = both.select(0, 1);
  }

  // What is projected, and the op's output, by heads, [batch, heads, len, head_dim].
  TensorView query() const { return q.narrow(1, 0, sizes_.num_heads); }
  TensorView key() const {
    return one_qkv_ ? q.narrow(1, sizes_.num_heads, sizes_.num_kv_heads)
                    : k.narrow(1, 0, sizes_.num_kv_heads);
  }
  TensorView value() const {
    if (one_qkv_) return q.narrow(1, 2 * sizes_.num_heads, sizes_.num_kv_heads);
    return one_kv_ ? k.narrow(1, sizes_.num_kv_heads, sizes_.num_kv_heads) : v;
  }
  TensorView out() const { return rows_by_head(rows, sizes_.head_dim); }

  TensorView q, k, v;  // [batch, heads of one or more projections, len, head_dim]
  std::array<TensorView, 2> transformed;  // query and key as the op reads them
  TensorView rows;                        // [batch, q_len, width]: the heads' outputs
  TensorView lse, lse_rest;               // [batch, num_heads, q_len], undefined unless kept

 private:
  // Heads of query's projection and those beside it, of key's, of value's; 0: with the one before.
  int64_t q_heads() const { return sizes_.num_heads + (one_qkv_ ? 2 * sizes_.num_kv_heads : 0); }
  int64_t k_heads() const { return one_qkv_ ? 0 : sizes_.num_kv_heads * (one_kv_ ? 2 : 1); }
  int64_t v_heads() const { return one_kv_ ? 0 : sizes_.num_kv_heads; }

  // Heads whose width is a multiple of this are whole vectors on every ISA.
  static constexpr int64_t kWholeVectors = 16;

  // [batch, heads, len, head_dim] at `at`: head by head, so that attention walks through dense
  // memory, whatever embed_dim is; token by token where a vector of columns would straddle heads.
  TensorView heads_at(std::byte* at, int64_t heads, int64_t len) const {
    const int64_t d = sizes_.head_dim;
    const int64_t shape[] = {batch_, heads, len, d};
    if (d % kWholeVectors == 0) return {at, sizes_.dtype, shape};
    const int64_t strides[] = {len * heads * d, d, heads * d, 1};
    return {at, sizes_.dtype, shape, strides};
  }

  const AttentionSizes& sizes_;
  bool one_kv_, one_qkv_;
  int64_t batch_, q_len_, kv_len_;
  MemoryPlan plan_;
  int64_t places_[7] = {-1, -1, -1, -1, -1, -1, -1};
};

// The projections [first, ...) of x that `heads` has room for.
void ProjectedAttention::project(Projection first, const ConstTensorView& x,
                                 const TensorView& heads) const {
  if (heads.numel() == 0) return;
  const auto part = static_cast<int>(first);
  if (sizes_.packed()) {
    packed_->in[0].run(x, heads, sizes_.begin(part));
  } else {
    packed_->in[part].run(x, heads);
  }
}

void ProjectedAttention::project_all(const ProjectedCall& call, const ProjectedHeads& heads) const {
  project(Projection::kQuery, call.query, heads.q);
  project(Projection::kKey, call.key, heads.k);
  project(Projection::kValue, call.value, heads.v);
}

// From the inputs to the rows; gives what was computed in between.
AttentionCall ProjectedAttention::attend(const ProjectedCall& call,
                                         const ProjectedHeads& heads) const {
  const DefaultFloatEnv env;  // the scale must not depend on the caller's rounding
  project_all(call, heads);
  if (sizes_.transforms()) {
    const auto operand = [&](const TensorView& projected, size_t i) -> HeadsToTransform {
      return {projected, heads.transformed[i], packed_->norm[i].view(), call.positions[i]};
    };
    transform_.run(operand(heads.query(), 0), operand(heads.key(), 1));
  }
  AttentionCall attention{
      .query = heads.transformed[0], .key = heads.transformed[1], .value = heads.value()};
  attention.extra_key = packed_->extra_key;
  attention.extra_value = packed_->extra_value;
  attention.scale = attention_scale(sizes_);
  attention.masks = call.masks;
  attention.dropout = call.dropout;
  attention.empty_rows = call.empty_rows;
  attention.weights_mode = call.weights_mode;
  attention.outputs = {
      .out = heads.out(), .lse = heads.lse, .weights = call.weights, .lse_rest = heads.lse_rest};
  run_attention(attention);
  return attention;
}

void ProjectedAttention::run(const ProjectedCall& call) const {
  if (call.out.numel() == 0) return;
  WorkspaceLease lease;
  ProjectedHeads heads(call, sizes_, /*keep=*/false);
  heads.place(lease.reserve(heads.bytes()));
  attend(call, heads);
  packed_->out.run(heads.rows, call.out);
}

void ProjectedAttention::run_cached(const ProjectedCall& call, const CachedStep& step) const {
  const DefaultFloatEnv env;
  WorkspaceLease lease;
  ProjectedHeads heads(call, sizes_, /*keep=*/false);
  heads.place(lease.reserve(heads.bytes()));
  project_all(call, heads);
  const auto operand = [&](const TensorView& projected, int64_t n, size_t i) -> HeadsToTransform {
    const TensorView rows = step.rows(projected, n);
    return {rows, rows, packed_->norm[i].view(), step.position(n)};
  };
  for (int64_t n = 0; sizes_.transforms() && n < step.num_sequences(); ++n) {
    if (step.count(n) == 0) continue;
    transform_.run(operand(heads.query(), n, 0), operand(heads.key(), n, 1));
  }
  AttentionCall attention{.query = heads.query()};
  attention.scale = attention_scale(sizes_);
  attention.outputs = {.out = heads.out()};
  step.run(attention, heads.key(), heads.value());
  packed_->out.run(heads.rows, call.out);
}

void ProjectedAttention::run_training(const ForwardInputs& inputs, ProjectedCall call,
                                      double dropout_p, TrainingContext* context) const {
  if (!context->state_) context->state_ = std::make_unique<TrainingContext::State>();
  TrainingContext::State& state = *context->state_;
  state.version = 0;
  state.inputs = inputs;
  state.inputs.weights = call.weights_mode;
  call.masks = state.inputs.masks.span();
  call.dropout = {.p = dropout_p, .seed = context->dropout.seed, .call = context->dropout.call};
  if (call.out.numel() != 0) {
    ProjectedHeads heads(call, sizes_, /*keep=*/true);
    heads.place(state.memory.reserve(heads.bytes()));
    state.attention = attend(call, heads);
    state.attention.outputs = {.out = heads.out(), .lse = heads.lse, .lse_rest = heads.lse_rest};
    state.rows = heads.rows;
    state.projected = {heads.query(), heads.key()};
    packed_->out.run(heads.rows, call.out);
  }
  ++context->dropout.call;
  state.version = packed_->version;
}

}  // namespace polyhead
