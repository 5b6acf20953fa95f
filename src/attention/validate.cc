// All checks of the op, in one place, before any output is touched.
#include <cstdint>
#include <string>

#include "attention/attention_call.h"
#include "attention/call_checks.h"
#include "base/message.h"

namespace polyhead {
namespace {

constexpr int64_t kMaxSize = int64_t{1} << 40;

class Checker : private CallChecks {
 public:
  Checker(const AttentionCall& call, const char* function)
      : CallChecks(call, function), call_(call) {}

  void run() const {
    run_inputs();
    outputs();
  }

  void run_inputs() const {
    inputs();
    extras();
    number(call_.scale, "scale");
    const int64_t shape[] = {call_.batch(), call_.num_heads(), call_.q_len(), call_.kv_len()};
    validate_dropout(call_.dropout, shape, function_);
    for (size_t i = 0; i < call_.masks.size(); ++i) {
      mask(call_.masks[i], message("masks[", i, "]"));
    }
  }

 private:
  // Stride 0 can pretend to any length: sizes that are multiplied for scratch must not wrap.
  void bounded(const ConstTensorView& view, const char* name) const {
    for (int64_t n : view.shape()) {
      if (n > kMaxSize)
        fail(name, message("shape is ", view.shape_string()), "at most 2^40 a size");
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

  void outputs() const {
    output_shapes();
    output(call_.outputs.out, "out");
    output(call_.outputs.lse, "lse");
    output(call_.outputs.lse_rest, "lse_rest");
    output(call_.outputs.weights, "weights");
  }

  void output(const ConstTensorView& view, const char* name) const {
    separate(view, name,
             {&call_.query, &call_.key, &call_.value, &call_.outputs.out, &call_.outputs.lse,
              &call_.outputs.lse_rest, &call_.outputs.weights});
  }

  void output_shapes() const {
    const AttentionOutputs& outputs = call_.outputs;
    rows(outputs.out, "out", "v_head_dim", call_.v_head_dim());
    if (outputs.lse.defined()) lse(outputs.lse, "lse");
    if (outputs.lse_rest.defined()) lse(outputs.lse_rest, "lse_rest");
    if (call_.weights_mode != WeightsMode::kNone) return weights(outputs.weights, "weights");
    if (outputs.weights.defined()) fail("weights", "given, with WeightsMode::kNone", "undefined");
  }

  const AttentionCall& call_;
};

}  // namespace

void validate(const AttentionCall& call, const char* function) { Checker(call, function).run(); }

void validate_inputs(const AttentionCall& call, const char* function) {
  Checker(call, function).run_inputs();
}

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
