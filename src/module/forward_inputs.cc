#include "module/forward_inputs.h"

#include <string>

#include "module/mask_views.h"
#include "module/require.h"

namespace polyhead {
namespace {

bool is_float_mask(const ConstTensorView& mask, DType module) {
  return mask.dtype() == DType::kFloat32 || mask.dtype() == module;
}

Mask hidden_or_added(const ConstTensorView& mask) {
  return mask.dtype() == DType::kBool ? Mask::boolean(mask, MaskSense::kExcluded)
                                      : Mask::additive(mask);
}

using Names = std::array<const char*, 3>;

// The checks of one call, in the order in which a user would want to hear of them.
class Checker {
 public:
  // `names` and `widths`: what the class calls the operands and the size of their rows.
  Checker(const AttentionSizes& sizes, const char* function, const Names& names,
          const Names& widths, bool batched_only)
      : sizes_(sizes),
        require_(function),
        names_(names),
        widths_(widths),
        batched_only_(batched_only) {}

  // Ranks, layouts and dtypes; leaves batch-first 3-D views.
  void operands(Layout layout, const ConstTensorView& query, const ConstTensorView& key,
                const ConstTensorView& value) {
    require_.given(query, names_[0]);
    if (query.rank() != 3 && (query.rank() != 2 || batched_only_)) {
      require_.fail(names_[0], "shape is " + query.shape_string(),
                    batched_only_ ? "3-D" : "3-D (batched) or 2-D (unbatched)");
    }
    inputs_.batched = query.rank() == 3;
    inputs_.layout = layout;
    inputs_.query = operand(query, names_[0], query.rank(), sizes_.embed_dim, widths_[0]);
    inputs_.key = operand(key, names_[1], query.rank(), sizes_.kdim, widths_[1]);
    inputs_.value = operand(value, names_[2], query.rank(), sizes_.vdim, widths_[2]);
    same_size(inputs_.key, 1, 0, "batch", inputs_.query, 0);
    same_size(inputs_.value, 2, 0, "batch", inputs_.query, 0);
    same_size(inputs_.value, 2, 1, "length", inputs_.key, 1);
    inputs_.columns = inputs_.kv_len() + sizes_.num_extra();
  }

  void key_padding_mask(const ConstTensorView& mask) {
    if (!mask.defined()) return;
    mask_dtype(mask, "key_padding_mask");
    const int64_t batch = inputs_.batch(), kv_len = inputs_.kv_len();
    const int64_t shape[] = {batch, kv_len};
    require_.shape(mask, "key_padding_mask", Shape(shape).last(inputs_.batched ? 2 : 1),
                   inputs_.batched ? "[B, S]" : "[S]");
    inputs_.key_padding_mask = mask;
    inputs_.masks.add(hidden_or_added(padding_for_op(mask, batch)));
  }

  void attn_mask(const ConstTensorView& mask) {
    if (!mask.defined()) return;
    mask_dtype(mask, "attn_mask");
    inputs_.attn_mask = mask;
    const int64_t batch = inputs_.batch(), heads = sizes_.num_heads;
    const int64_t q_len = inputs_.q_len(), kv_len = inputs_.kv_len();
    if (mask.rank() == 4) {
      broadcastable(mask, "attn_mask");
      inputs_.masks.add(hidden_or_added(mask));
      return;
    }
    const int64_t shape[] = {batch * heads, q_len, kv_len};
    if (mask.rank() != 2 && mask.rank() != 3) {
      require_.fail("attn_mask", "shape is " + mask.shape_string(),
                    "[L, S], [B*H, L, S] or broadcastable [1|B, 1|H, 1|L, 1|S]");
    }
    const char* const letters = inputs_.batched ? "[B*H, L, S]" : "[H, L, S]";
    require_.shape(mask, "attn_mask", Shape(shape).last(static_cast<size_t>(mask.rank())),
                   mask.rank() == 2 ? "[L, S]" : letters);
    inputs_.masks.add(hidden_or_added(attn_mask_for_op(mask, batch, heads)));
  }

  // Angles are within 2^-34 of a turn for positions below this: a step is rounded to 2^-64 turns.
  static constexpr int64_t kMostPositions = int64_t{1} << 31;

  void positions(int64_t query, int64_t key) {
    position(query, inputs_.q_len(), "query_position");
    position(key, inputs_.kv_len(), "key_position");
    inputs_.positions = {query, key};
  }

  // Top left compares places in the call, which are positions if both begin at the same.
  void causal(CausalAlign align) {
    const auto [query, key] = inputs_.positions;
    if (align == CausalAlign::kTopLeft && query != key) {
      require_.fail(
          "is_causal",
          message("aligned top left, with query_position ", query, " and key_position ", key),
          "aligned bottom right, or with the same position for both");
    }
    inputs_.masks.add(Mask::causal(align));
  }

  // The from-scratch class: numbers of any type, right-aligned, times -1e5.
  void scratch_mask(const ConstTensorView& mask) {
    if (!mask.defined()) return;
    if (mask.dtype() == DType::kFloat16 || mask.dtype() == DType::kBFloat16) {
      require_.fail("mask", message("dtype is ", dtype_name(mask.dtype())),
                    "float32, float64, bool, int32 or int64");
    }
    if (mask.rank() > 4) {
      require_.fail("mask", "shape is " + mask.shape_string(), "at most 4-D");
    }
    inputs_.attn_mask = mask;
    inputs_.aligns_mask = true;
    const ConstTensorView aligned = scratch_mask_for_op(mask);
    broadcastable(aligned, "mask");
    inputs_.masks.add(Mask::additive(aligned, -1e5));
  }

  ForwardInputs& inputs() { return inputs_; }

 private:
  void position(int64_t first, int64_t len, const char* name) const {
    if (first != 0 && !sizes_.rotates()) {
      require_.fail(name, message("got ", first, ", but the module has no rotary positions"), "0");
    }
    if (sizes_.rotates() && (first < 0 || len > kMostPositions || first > kMostPositions - len)) {
      require_.fail(name, message("got ", first, " for ", len, " positions"),
                    message("0 or more, and the last position below ", kMostPositions));
    }
  }

  ConstTensorView operand(const ConstTensorView& view, const char* name, int rank, int64_t features,
                          const char* why) const {
    require_.given(view, name);
    if (view.rank() != rank) {
      require_.fail(name, "shape is " + view.shape_string(),
                    message(rank, "-D, as ", names_[0], " is"));
    }
    require_.dtype(view, name, sizes_.dtype);
    const int64_t size = view.size(rank - 1);
    if (size != features) {
      require_.fail(name, message("embed dim is ", size, " in ", view.shape_string()),
                    message(features, " (", why, ")"));
    }
    return batch_first(view, inputs_);
  }

  void same_size(const ConstTensorView& view, size_t name, int dim, const char* what,
                 const ConstTensorView& as, size_t whose) const {
    if (view.size(dim) == as.size(dim)) return;
    require_.fail(names_[name], message(what, " is ", view.size(dim)),
                  message(names_[whose], "'s ", as.size(dim)));
  }

  void mask_dtype(const ConstTensorView& mask, const char* name) const {
    if (mask.dtype() == DType::kBool || is_float_mask(mask, sizes_.dtype)) return;
    const bool wide = sizes_.dtype == DType::kFloat64;
    require_.fail(name, message("dtype is ", dtype_name(mask.dtype())),
                  wide ? "bool, float32 or float64" : "bool or float32");
  }

  void broadcastable(const ConstTensorView& mask, const char* name) const {
    const int64_t need[] = {inputs_.batch(), sizes_.num_heads, inputs_.q_len(), inputs_.kv_len()};
    static constexpr const char* kNames[] = {"batch", "num_heads", "query length", "key length"};
    for (int dim = 0; dim < 4; ++dim) {
      if (mask.size(dim) == 1 || mask.size(dim) == need[dim]) continue;
      require_.fail(
          name, message("shape is ", mask.shape_string(), ", ", kNames[dim], " ", mask.size(dim)),
          need[dim] == 1 ? "1" : message("1 or ", need[dim]));
    }
  }

  const AttentionSizes& sizes_;
  Require require_;
  Names names_, widths_;
  bool batched_only_;
  ForwardInputs inputs_;
};

}  // namespace

ForwardInputs check_mha_inputs(const AttentionSizes& sizes, Layout layout,
                               const ConstTensorView& query, const ConstTensorView& key,
                               const ConstTensorView& value, const ForwardOptions& options) {
  Checker checker(sizes, kMhaName, {"query", "key", "value"}, {"embed_dim", "kdim", "vdim"},
                  /*batched_only=*/false);
  checker.operands(layout, query, key, value);
  checker.key_padding_mask(options.key_padding_mask);
  checker.attn_mask(options.attn_mask);
  checker.positions(options.query_position, options.key_position);
  if (options.is_causal) checker.causal(options.causal_align);
  return checker.inputs();
}

ForwardInputs check_scratch_inputs(const AttentionSizes& sizes, const ConstTensorView& q,
                                   const ConstTensorView& k, const ConstTensorView& v,
                                   const ConstTensorView& mask) {
  Checker checker(sizes, kScratchName, {"q", "k", "v"}, {"embed_size", "embed_size", "embed_size"},
                  /*batched_only=*/true);
  checker.operands(Layout::kBatchFirst, q, k, v);
  checker.scratch_mask(mask);
  return checker.inputs();
}

AttentionSizes sizes_of(const MultiheadAttention::Config& config) {
  return {.embed_dim = config.embed_dim,
          .num_heads = config.num_heads,
          .num_kv_heads = config.num_kv_heads,
          .head_dim = config.head_dim,
          .kdim = config.kdim,
          .vdim = config.vdim,
          .add_bias_kv = config.add_bias_kv,
          .add_zero_attn = config.add_zero_attn,
          .dtype = config.dtype,
          .qk_norm = config.qk_norm,
          .qk_norm_eps = config.qk_norm_eps,
          .rope = config.rope};
}

AttentionSizes sizes_of(const FromScratchMultiHeadAttention& module) {
  const int64_t embed_size = module.embed_size();
  const bool full = module.head_width() == HeadWidth::kFull;
  return {.embed_dim = embed_size,
          .num_heads = module.num_heads(),
          .num_kv_heads = module.num_heads(),
          .head_dim = full ? embed_size : embed_size / module.num_heads(),
          .kdim = embed_size,
          .vdim = embed_size,
          .dtype = module.dtype()};
}

ShapeBuffer rows_shape(const ForwardInputs& inputs, int64_t len, int64_t features) {
  const int64_t batch = inputs.batch();
  if (!inputs.batched) return {{len, features}, 2};
  if (inputs.layout == Layout::kSequenceFirst) return {{len, batch, features}, 3};
  return {{batch, len, features}, 3};
}

ShapeBuffer out_shape(const ForwardInputs& inputs, const AttentionSizes& sizes) {
  return rows_shape(inputs, inputs.q_len(), sizes.embed_dim);
}

ShapeBuffer weights_shape(const ForwardInputs& inputs, const AttentionSizes& sizes,
                          WeightsMode mode) {
  ShapeBuffer shape;
  if (inputs.batched) shape.sizes[shape.rank++] = inputs.batch();
  if (mode == WeightsMode::kPerHead) shape.sizes[shape.rank++] = sizes.num_heads;
  shape.sizes[shape.rank++] = inputs.q_len();
  shape.sizes[shape.rank++] = inputs.columns;
  return shape;
}

ProjectedCall complete_call(const ForwardInputs& inputs, const AttentionSizes& sizes,
                            WeightsMode mode, const TensorView& out, const TensorView& weights,
                            const char* function) {
  const Require require(function);
  const auto output = [&](const TensorView& view, const char* name, Shape need) {
    require.given(view, name);
    require.shape(view, name, need);
    require.dtype(view, name, sizes.dtype);
  };
  ProjectedCall call{.query = inputs.query, .key = inputs.key, .value = inputs.value};
  output(out, "out", out_shape(inputs, sizes));
  call.out = batch_first(out, inputs);
  call.masks = inputs.masks.span();
  call.positions = inputs.positions;
  call.weights_mode = mode;
  if (mode == WeightsMode::kNone) {
    if (weights.defined()) require.fail("weights", "given, with WeightsMode::kNone", "undefined");
    return call;
  }
  output(weights, "weights", weights_shape(inputs, sizes, mode));
  call.weights = inputs.batched ? weights : weights.unsqueezed(0);
  return call;
}

}  // namespace polyhead
