// All checks of the op, in one place, before any output is touched.
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include <polyhead/error.h>
#include "attention/attention_call.h"
#include "base/message.h"

namespace polyhead {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 40;

// The bytes from a view's first element to its last, and whether it fills them without gaps.
struct Extent {
  uintptr_t begin = 0, end = 0;
  bool dense = true;
};

Extent extent_of(const ConstTensorView& view) {
  if (!view.defined() || view.numel() == 0) return {};
  const auto bytes = static_cast<int64_t>(dtype_bytes(view.dtype()));
  int64_t first = 0, last = 0;
  for (int dim = 0; dim < view.rank(); ++dim) {
    const int64_t reach = (view.size(dim) - 1) * view.stride(dim);
    (reach < 0 ? first : last) += reach;
  }
  const auto base = reinterpret_cast<uintptr_t>(view.data());
  return {base + static_cast<uintptr_t>(first * bytes),
          base + static_cast<uintptr_t>((last + 1) * bytes), last - first + 1 == view.numel()};
}

// Views with gaps may be woven into each other, as the columns of one matrix are: those pass unless
// they start at the same element.
bool overlap(const Extent& a, const Extent& b) {
  const bool meet = a.begin < b.end && b.begin < a.end;
  return meet && ((a.dense && b.dense) || a.begin == b.begin);
}

class Checker {
 public:
  Checker(const AttentionCall& call, const char* function) : call_(call), function_(function) {}

  void run() const {
    inputs();
    extras();
    number(call_.scale, "scale");
    for (size_t i = 0; i < call_.masks.size(); ++i) {
      mask(call_.masks[i], message("masks[", i, "]"));
    }
    outputs();
  }

 private:
  [[noreturn]] void fail(const std::string& argument, const std::string& got,
                         const std::string& need) const {
    throw InvalidArgument(message(function_, ": ", argument, ": ", got, "; must be ", need));
  }

  void tensor(const ConstTensorView& view, const char* name, int rank) const {
    if (!view.defined() || view.rank() != rank) {
      const std::string got = view.defined() ? "shape is " + view.shape_string() : "not given";
      fail(name, got, message("a ", rank, "-dimensional tensor"));
    }
    const DType dtype = call_.query.dtype();
    if (view.dtype() != dtype) {
      fail(name, message("dtype is ", dtype_name(view.dtype())),
           message("query's ", dtype_name(dtype)));
    }
  }

  void size(const ConstTensorView& view, const char* name, int dim, const char* what,
            int64_t need) const {
    if (view.size(dim) != need) {
      fail(name, message(what, " is ", view.size(dim), " in ", view.shape_string()),
           std::to_string(need));
    }
  }

  // Stride 0 can pretend to any length: sizes that are multiplied for scratch must not wrap.
  void bounded(const ConstTensorView& view, const char* name) const {
    for (int64_t n : view.shape()) {
      if (n > kMaxSize)
        fail(name, message("shape is ", view.shape_string()), "at most 2^40 a size");
    }
  }

  // Finite also in the query's dtype.
  void number(double x, const std::string& name) const {
    const bool is_float = call_.query.dtype() == DType::kFloat32;
    const double limit =
        is_float ? std::numeric_limits<float>::max() : std::numeric_limits<double>::max();
    if (!(std::abs(x) <= limit)) {
      fail(name, message("got ", x), message("a finite ", dtype_name(call_.query.dtype())));
    }
  }

  void inputs() const {
    const DType dtype = call_.query.dtype();
    if (dtype != DType::kFloat32 && dtype != DType::kFloat64) {
      fail("query", message("dtype is ", dtype_name(dtype)), "float32 or float64");
    }
    tensor(call_.query, "query", 4);
    tensor(call_.key, "key", 4);
    tensor(call_.value, "value", 4);
    size(call_.key, "key", 0, "batch", call_.batch());
    size(call_.key, "key", 3, "head_dim", call_.head_dim());
    size(call_.value, "value", 0, "batch", call_.batch());
    size(call_.value, "value", 1, "num_kv_heads", call_.num_kv_heads());
    size(call_.value, "value", 2, "kv_len", call_.kv_len());
    bounded(call_.query, "query");
    bounded(call_.key, "key");
    bounded(call_.value, "value");
    const int64_t heads = call_.num_heads(), kv_heads = call_.num_kv_heads();
    if (heads != 0 && (kv_heads == 0 || heads % kv_heads != 0)) {
      fail("key", message("num_kv_heads is ", kv_heads), message("a divisor of ", heads, " heads"));
    }
  }

  void extras() const {
    if (!call_.extra_key.defined() && !call_.extra_value.defined()) return;
    tensor(call_.extra_key, "extra_key", 3);
    tensor(call_.extra_value, "extra_value", 3);
    size(call_.extra_key, "extra_key", 0, "num_kv_heads", call_.num_kv_heads());
    size(call_.extra_key, "extra_key", 2, "head_dim", call_.head_dim());
    size(call_.extra_value, "extra_value", 0, "num_kv_heads", call_.num_kv_heads());
    size(call_.extra_value, "extra_value", 1, "columns", call_.num_extra());
    size(call_.extra_value, "extra_value", 2, "v_head_dim", call_.v_head_dim());
    if (call_.num_extra() > 8) fail("extra_key", "more than 8 columns", "at most 8");
  }

  void mask(const Mask& mask, const std::string& name) const {
    if (mask.kind() == Mask::Kind::kCausal) return;
    const ConstTensorView& view = mask.tensor();
    if (!view.defined() || view.rank() < 2 || view.rank() > 4) {
      fail(name, view.defined() ? "shape is " + view.shape_string() : "not given",
           "[L, S], [H, L, S] or [B, H, L, S], each size also 1");
    }
    const bool boolean = mask.kind() == Mask::Kind::kBoolean;
    if (!boolean) number(mask.factor(), name + ".factor");
    const bool half = view.dtype() == DType::kFloat16 || view.dtype() == DType::kBFloat16;
    if (boolean ? view.dtype() != DType::kBool : half) {
      fail(name, message("dtype is ", dtype_name(view.dtype())),
           boolean ? "bool" : "float32, float64, bool, int32 or int64");
    }
    const int64_t need[] = {call_.batch(), call_.num_heads(), call_.q_len(), call_.kv_len()};
    static constexpr const char* kNames[] = {"batch", "num_heads", "q_len", "kv_len"};
    for (int dim = 0; dim < view.rank(); ++dim) {
      const int as = dim + 4 - view.rank();
      if (view.size(dim) != 1 && view.size(dim) != need[as]) {
        fail(name, message("size ", dim, " is ", view.size(dim), " in ", view.shape_string()),
             message("1 or ", kNames[as], " = ", need[as]));
      }
    }
  }

  void separate(const ConstTensorView& output, const char* name) const {
    const Extent extent = extent_of(output);
    for (int dim = 0; dim < output.rank(); ++dim) {
      if (output.size(dim) > 1 && output.stride(dim) == 0) {
        fail(name, message("stride ", dim, " is 0"), "memory of its own for each element");
      }
    }
    const ConstTensorView* others[] = {&call_.query,       &call_.key,
                                       &call_.value,       &call_.outputs.out,
                                       &call_.outputs.lse, &call_.outputs.weights};
    for (const ConstTensorView* other : others) {
      if (other != &output && overlap(extent, extent_of(*other))) {
        fail(name, "overlaps another tensor of the call", "memory of its own");
      }
    }
  }

  void outputs() const {
    output_shapes();
    separate(call_.outputs.out, "out");
    separate(call_.outputs.lse, "lse");
    separate(call_.outputs.weights, "weights");
  }

  void output_shapes() const {
    const AttentionOutputs& outputs = call_.outputs;
    tensor(outputs.out, "out", 4);
    size(outputs.out, "out", 0, "batch", call_.batch());
    size(outputs.out, "out", 1, "num_heads", call_.num_heads());
    size(outputs.out, "out", 2, "q_len", call_.q_len());
    size(outputs.out, "out", 3, "v_head_dim", call_.v_head_dim());
    if (outputs.lse.defined()) {
      tensor(outputs.lse, "lse", 3);
      size(outputs.lse, "lse", 0, "batch", call_.batch());
      size(outputs.lse, "lse", 1, "num_heads", call_.num_heads());
      size(outputs.lse, "lse", 2, "q_len", call_.q_len());
    }
    if (call_.weights_mode == WeightsMode::kNone) {
      if (outputs.weights.defined()) fail("weights", "given, with WeightsMode::kNone", "undefined");
      return;
    }
    const bool per_head = call_.weights_mode == WeightsMode::kPerHead;
    const int rank = per_head ? 4 : 3;
    tensor(outputs.weights, "weights", rank);
    size(outputs.weights, "weights", 0, "batch", call_.batch());
    if (per_head) size(outputs.weights, "weights", 1, "num_heads", call_.num_heads());
    size(outputs.weights, "weights", rank - 2, "q_len", call_.q_len());
    size(outputs.weights, "weights", rank - 1, "kv_len", call_.kv_len() + call_.num_extra());
  }

  const AttentionCall& call_;
  const char* function_;
};

}  // namespace

void validate(const AttentionCall& call, const char* function) { Checker(call, function).run(); }

MaskStrides mask_strides(const ConstTensorView& mask) {
  int64_t strides[4] = {};
  for (int dim = 0; dim < mask.rank(); ++dim) {
    if (mask.size(dim) != 1) strides[dim + 4 - mask.rank()] = mask.stride(dim);
  }
  return {strides[0], strides[1], strides[2], strides[3]};
}

int64_t causal_offset(CausalAlign align, int64_t q_len, int64_t kv_len) {
  return align == CausalAlign::kTopLeft ? 0 : kv_len - q_len;
}

}  // namespace polyhead
