#include "module/projected_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include <polyhead/error.h>
#include "attention/attention_call.h"
#include "base/checked_math.h"
#include "base/message.h"
#include "base/workspace.h"
#include <polyhead/linear.h>

namespace polyhead {
namespace {

bool same_tensor(const ConstTensorView& a, const ConstTensorView& b) {
  return a.data() == b.data() && std::ranges::equal(a.shape(), b.shape()) &&
         std::ranges::equal(a.strides(), b.strides());
}

// Heads whose width is a multiple of this are whole vectors on every ISA.
constexpr int64_t kWholeVectors = 16;

// [batch, heads, len, head_dim] at `at`: head by head, so that attention walks through dense
// memory, whatever embed_dim is; token by token where a vector of columns would straddle heads.
TensorView heads_at(std::byte* at, const AttentionSizes& sizes, const int64_t (&shape)[4]) {
  const int64_t heads = shape[1], len = shape[2], d = shape[3];
  if (d % kWholeVectors == 0) return {at, sizes.dtype, shape};
  const int64_t strides[] = {len * heads * d, d, heads * d, 1};
  return {at, sizes.dtype, shape, strides};
}

}  // namespace

struct ProjectedAttention::Packed {
  PackedLinear in[3];  // the first is all three where they are packed
  PackedLinear out;
  Tensor extra_key, extra_value;  // [num_heads, extra, head_dim]
};

double attention_scale(const AttentionSizes& sizes) {
  return 1 / std::sqrt(static_cast<double>(sizes.head_dim));
}

Tensor extra_columns(const AttentionSizes& sizes, const ConstTensorView& bias) {
  const int64_t extra = sizes.num_extra();
  if (extra == 0) return {};
  const DType dtype = bias.defined() ? bias.dtype() : sizes.dtype;
  Tensor columns(dtype, {sizes.num_heads, extra, sizes.head_dim});
  if (!bias.defined()) return columns;
  const size_t head_bytes = static_cast<size_t>(sizes.head_dim) * dtype_bytes(dtype);
  const auto* from = static_cast<const std::byte*>(bias.data());
  auto* to = static_cast<std::byte*>(columns.data());
  for (size_t h = 0; h < static_cast<size_t>(sizes.num_heads); ++h) {
    std::memcpy(to + h * static_cast<size_t>(extra) * head_bytes, from + h * head_bytes,
                head_bytes);
  }
  return columns;
}

ProjectedAttention::ProjectedAttention(const AttentionSizes& sizes, AttentionParameters parameters)
    : sizes_(sizes), parameters_(std::move(parameters)) {
  repack();
}
ProjectedAttention::ProjectedAttention(ProjectedAttention&&) noexcept = default;
ProjectedAttention::~ProjectedAttention() = default;

void ProjectedAttention::repack() {
  Tensor extra_key = extra_columns(sizes_, parameters_.bias_k.view());
  Tensor extra_value = extra_columns(sizes_, parameters_.bias_v.view());
  if (!packed_) packed_ = std::make_unique<Packed>();
  const int parts = sizes_.packed() ? 1 : 3;
  for (int i = 0; i < parts; ++i) {
    const auto first = static_cast<Projection>(i);
    packed_->in[i].assign(parameters_.weight(first, 3 / parts), parameters_.bias(first, 3 / parts));
  }
  packed_->out.assign(parameters_.out_proj_weight, parameters_.out_proj_bias.view());
  packed_->extra_key = std::move(extra_key);
  packed_->extra_value = std::move(extra_value);
}

namespace {

// Scratch of one call: heads of q, k and v, and the rows that the out-projection reads.
class Scratch {
 public:
  // How many projections stand beside query's, key's and value's; 0: with the one before.
  struct Projections {
    int64_t q, k, v;
  };

  Scratch(WorkspaceLease& lease, const ProjectedCall& call, const AttentionSizes& sizes,
          const Projections& counts) {
    const int64_t batch = call.query.size(0), heads = sizes.num_heads, d = sizes.head_dim;
    const int64_t q_len = call.query.size(1), kv_len = call.key.size(1);
    const int64_t shapes[4][4] = {{batch, counts.q * heads, q_len, d},
                                  {batch, counts.k * heads, kv_len, d},
                                  {batch, counts.v * heads, kv_len, d},
                                  {batch, heads, q_len, d}};
    int64_t offsets[4], total = 0;
    for (size_t i = 0; i < 4; ++i) {
      offsets[i] = total;
      total = end_of(total, shapes[i], sizes.dtype);
    }
    std::byte* memory = lease.reserve(static_cast<size_t>(total));
    TensorView* regions[] = {&q, &k, &v};
    for (size_t i = 0; i < 3; ++i) *regions[i] = heads_at(memory + offsets[i], sizes, shapes[i]);
    const int64_t rows_shape[] = {batch, q_len, heads * d};
    rows = TensorView(memory + offsets[3], sizes.dtype, rows_shape);
    const int64_t out_strides[] = {q_len * heads * d, d, heads * d, 1};
    out = TensorView(rows.data(), sizes.dtype, shapes[3], out_strides);
  }

  TensorView q, k, v;  // [batch, heads of one or more projections, len, head_dim]
  TensorView rows;     // [batch, q_len, width]: the heads' outputs,
  TensorView out;      // the same by heads, [batch, num_heads, q_len, head_dim]

 private:
  static int64_t end_of(int64_t begin, const int64_t (&shape)[4], DType dtype) {
    int64_t bytes = static_cast<int64_t>(dtype_bytes(dtype));
    bool fits = true;
    for (const int64_t size : shape) fits = fits && checked_multiply(bytes, size, &bytes);
    if (!fits || !checked_add(bytes, begin + static_cast<int64_t>(kAlignment), &bytes)) {
      throw InvalidArgument(message("attention module: batch ", shape[0], ", length ", shape[2],
                                    "; too many elements"));
    }
    return bytes / static_cast<int64_t>(kAlignment) * static_cast<int64_t>(kAlignment);
  }
};

}  // namespace

// The projections [first, ...) of x that `heads` has room for.
void ProjectedAttention::project(Projection first, const ConstTensorView& x,
                                 const TensorView& heads) const {
  if (heads.numel() == 0) return;
  const auto part = static_cast<int64_t>(first);
  if (sizes_.packed()) {
    packed_->in[0].run(x, heads, part * sizes_.width());
  } else {
    packed_->in[part].run(x, heads);
  }
}

// Inputs that are the same tensor are read once, by one product over the packed rows.
void ProjectedAttention::run(const ProjectedCall& call) const {
  if (call.out.numel() == 0) return;
  const int64_t heads = sizes_.num_heads;
  const bool one_kv = sizes_.packed() && same_tensor(call.key, call.value);
  const bool one_qkv = one_kv && same_tensor(call.query, call.key);
  WorkspaceLease lease;
  const Scratch scratch(
      lease, call, sizes_,
      {.q = one_qkv ? 3 : 1, .k = one_qkv ? 0 : (one_kv ? 2 : 1), .v = one_kv ? 0 : 1});
  project(Projection::kQuery, call.query, scratch.q);
  project(Projection::kKey, call.key, scratch.k);
  project(Projection::kValue, call.value, scratch.v);
  AttentionCall attention{.query = scratch.q.narrow(1, 0, heads)};
  attention.key = (one_qkv ? scratch.q : scratch.k).narrow(1, one_qkv ? heads : 0, heads);
  attention.value = one_qkv  ? scratch.q.narrow(1, 2 * heads, heads)
                    : one_kv ? scratch.k.narrow(1, heads, heads)
                             : scratch.v;
  attention.extra_key = packed_->extra_key;
  attention.extra_value = packed_->extra_value;
  attention.scale = attention_scale(sizes_);
  attention.masks = call.masks;
  attention.empty_rows = call.empty_rows;
  attention.weights_mode = call.weights_mode;
  attention.outputs = {.out = scratch.out, .weights = call.weights};
  run_attention(attention);
  packed_->out.run(scratch.rows, call.out);
}

}  // namespace polyhead
