#include "module/projected_attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>
#include <utility>

#include <polyhead/error.h>
#include "attention/attention_call.h"
#include "base/checked_math.h"
#include "base/message.h"
#include "base/workspace.h"
#include "module/linear.h"

namespace polyhead {
namespace {

// A packed copy made at first use: a module that only ever attends to itself packs its weights
// once, not once per way of calling it.
class LazyLinear {
 public:
  const PackedLinear& get(const AttentionParameters& parameters, Projection first, int count) {
    std::call_once(once_, [&] {
      linear_ = PackedLinear(parameters.weight(first, count), parameters.bias(first, count));
    });
    return linear_;
  }

 private:
  std::once_flag once_;
  PackedLinear linear_;
};

bool same_tensor(const ConstTensorView& a, const ConstTensorView& b) {
  return a.data() == b.data() && std::ranges::equal(a.shape(), b.shape()) &&
         std::ranges::equal(a.strides(), b.strides());
}

// Rows [batch, len, row_width] in scratch, and the columns of one projection in them, by head.
struct ProjectedRows {
  TensorView rows;

  ProjectedRows() = default;
  ProjectedRows(std::byte* at, DType dtype, int64_t batch, int64_t len, int64_t row_width) {
    const int64_t shape[] = {batch, len, row_width};
    rows = TensorView(at, dtype, shape);
  }

  TensorView heads(const AttentionSizes& sizes, int64_t first_column) const {
    const TensorView columns = rows.narrow(2, first_column, sizes.width());
    const int64_t len = rows.size(1), d = sizes.head_dim;
    const int64_t shape[] = {rows.size(0), sizes.num_heads, len, d};
    const int64_t strides[] = {columns.stride(0), d, columns.stride(1), 1};
    return {columns.data(), rows.dtype(), shape, strides};  // [batch, num_heads, len, head_dim]
  }
};

}  // namespace

struct ProjectedAttention::Packed {
  LazyLinear qkv, kv, q, k, v;
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
  auto packed = std::make_unique<Packed>();
  packed->out = PackedLinear(parameters_.out_proj_weight, parameters_.out_proj_bias.view());
  packed->extra_key = extra_columns(sizes_, parameters_.bias_k.view());
  packed->extra_value = extra_columns(sizes_, parameters_.bias_v.view());
  packed_ = std::move(packed);
}

namespace {

// Scratch of one call, laid out for how query, key and value share their input.
class Scratch {
 public:
  // Columns of one row of each of the four regions; 0: not there.
  struct Widths {
    int64_t q, k, v, heads;
  };

  Scratch(WorkspaceLease& lease, const ProjectedCall& call, DType dtype, const Widths& widths) {
    const int64_t batch = call.query.size(0);
    const int64_t q_len = call.query.size(1), kv_len = call.key.size(1);
    const int64_t lens[] = {q_len, kv_len, kv_len, q_len};
    const int64_t columns[] = {widths.q, widths.k, widths.v, widths.heads};
    int64_t offsets[4], total = 0;
    for (size_t i = 0; i < 4; ++i) {
      offsets[i] = total;
      total = end_of(total, batch, lens[i], columns[i] * static_cast<int64_t>(dtype_bytes(dtype)));
    }
    std::byte* memory = lease.reserve(static_cast<size_t>(total));
    ProjectedRows* regions[] = {&q, &k, &v, &heads};
    for (size_t i = 0; i < 4; ++i) {
      *regions[i] = ProjectedRows(memory + offsets[i], dtype, batch, lens[i], columns[i]);
    }
  }

  ProjectedRows q, k, v, heads;

 private:
  static int64_t end_of(int64_t begin, int64_t batch, int64_t len, int64_t row_bytes) {
    int64_t bytes;
    if (!checked_multiply(batch, len, &bytes) || !checked_multiply(bytes, row_bytes, &bytes) ||
        !checked_add(bytes, begin + static_cast<int64_t>(kAlignment), &bytes)) {
      throw InvalidArgument(
          message("attention module: batch ", batch, ", length ", len, "; too many elements"));
    }
    return bytes / static_cast<int64_t>(kAlignment) * static_cast<int64_t>(kAlignment);
  }
};

void run_linear(const PackedLinear& linear, const ConstTensorView& x, const ProjectedRows& out) {
  if (out.rows.numel() != 0) linear.run(x, out.rows);
}

}  // namespace

void ProjectedAttention::run(const ProjectedCall& call) const {
  if (call.out.numel() == 0) return;
  const int64_t width = sizes_.width();
  // Inputs that are the same tensor are read once, by one product over the packed rows.
  const bool one_kv = sizes_.packed() && same_tensor(call.key, call.value);
  const bool one_qkv = one_kv && same_tensor(call.query, call.key);
  WorkspaceLease lease;
  Scratch scratch(lease, call, sizes_.dtype,
                  {.q = one_qkv ? 3 * width : width,
                   .k = one_qkv ? 0 : (one_kv ? 2 * width : width),
                   .v = one_kv ? 0 : width,
                   .heads = width});
  const auto project = [&](LazyLinear& linear, Projection first, int count,
                           const ConstTensorView& x, const ProjectedRows& rows) {
    run_linear(linear.get(parameters_, first, count), x, rows);
  };
  AttentionCall attention{.query = scratch.q.heads(sizes_, 0)};
  if (one_qkv) {
    project(packed_->qkv, Projection::kQuery, 3, call.query, scratch.q);
    attention.key = scratch.q.heads(sizes_, width);
    attention.value = scratch.q.heads(sizes_, 2 * width);
  } else {
    project(packed_->q, Projection::kQuery, 1, call.query, scratch.q);
    if (one_kv) {
      project(packed_->kv, Projection::kKey, 2, call.key, scratch.k);
    } else {
      project(packed_->k, Projection::kKey, 1, call.key, scratch.k);
      project(packed_->v, Projection::kValue, 1, call.value, scratch.v);
    }
    attention.key = scratch.k.heads(sizes_, 0);
    attention.value = one_kv ? scratch.k.heads(sizes_, width) : scratch.v.heads(sizes_, 0);
  }
  attention.extra_key = packed_->extra_key;
  attention.extra_value = packed_->extra_value;
  attention.scale = attention_scale(sizes_);
  attention.masks = call.masks;
  attention.empty_rows = call.empty_rows;
  attention.weights_mode = call.weights_mode;
  attention.outputs = {.out = scratch.heads.heads(sizes_, 0), .weights = call.weights};
  run_attention(attention);
  packed_->out.run(scratch.heads.rows, call.out);
}

}  // namespace polyhead
