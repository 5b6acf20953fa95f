// All checks of the op, in one place, before any output is touched.
#include <algorithm>
#include <cstdint>
#include <limits>
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
    sequences();
    number(call_.scale, "scale");
    modifiers();
    const int64_t shape[] = {call_.num_sequences(), call_.num_heads(), call_.q_len(),
                             call_.kv_len()};
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
    if (call_.cached.empty()) {
      size(call_.key, "key", 0, "batch", call_.batch());
      size(call_.value, "value", 0, "batch", call_.batch());
      size(call_.value, "value", 2, "kv_len", call_.kv_len());
      size(call_.key, "key", 3, "head_dim", call_.head_dim());
      bounded(call_.key, "key");
    }
    size(call_.value, "value", 1, "num_kv_heads", call_.num_kv_heads());
    bounded(call_.query, "query");
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

  // int32 or int64 [need].
  void integers(const ConstTensorView& view, const std::string& name, int64_t need) const {
    if (!view.defined() || view.rank() != 1 || (need >= 0 && view.size(0) != need)) {
      const std::string size = need >= 0 ? std::to_string(need) : "N + 1";
      fail(name, view.defined() ? "shape is " + view.shape_string() : "not given",
           "[" + size + "]");
    }
    if (view.dtype() != DType::kInt32 && view.dtype() != DType::kInt64) {
      fail(name, message("dtype is ", dtype_name(view.dtype())), "int32 or int64");
    }
  }

  // From 0 to `total`, none less than the one before.
  void bounds(const ConstTensorView& view, const char* name, const char* what,
              int64_t total) const {
    const int64_t last = view.size(0) - 1;
    if (last < 0) fail(name, "shape is [0]", "[N + 1]");
    for (int64_t n = 0, before = 0; n <= last; ++n) {
      const int64_t bound = integer_at(view, n);
      if (n == 0 && bound != 0) fail(name, message("[0] is ", bound), "0");
      if (bound < before) {
        fail(name, message("[", n, "] is ", bound), message("at least ", before, ", as before it"));
      }
      before = bound;
    }
    if (integer_at(view, last) != total) {
      fail(name, message("the last is ", integer_at(view, last)), message(what, " = ", total));
    }
  }

  void sequences() const {
    const ConstTensorView &of_queries = call_.cu_seqlens_q, &of_keys = call_.cu_seqlens_k;
    if (!of_queries.defined() && !of_keys.defined()) return;
    const bool paged = !call_.cached.empty();
    integers(of_queries, "cu_seqlens_q",
             paged ? static_cast<int64_t>(call_.cached.size()) + 1 : -1);
    if (!paged) integers(of_keys, "cu_seqlens_k", of_queries.size(0));
    if (call_.batch() != 1) {
      fail("query", message("batch is ", call_.batch(), ", with cu_seqlens_q"), "1");
    }
    bounds(of_queries, "cu_seqlens_q", "q_len", call_.q_len());
    if (!paged) bounds(of_keys, "cu_seqlens_k", "kv_len", call_.kv_len());
    if (call_.weights_mode != WeightsMode::kNone) {
      fail("weights", "wanted, with cu_seqlens_q", "WeightsMode::kNone");
    }
  }

  void key_lengths(const ConstTensorView& lengths, const std::string& name) const {
    integers(lengths, name, call_.num_sequences());
    for (int64_t n = 0; n < lengths.size(0); ++n) {
      const int64_t length = integer_at(lengths, n);
      const int64_t kv_len =
          call_.packed() && call_.cached.empty()
              ? integer_at(call_.cu_seqlens_k, n + 1) - integer_at(call_.cu_seqlens_k, n)
              : call_.kv_len();
      if (length < 0 || length > kv_len) {
        fail(message(name, "[", n, "]"), message("got ", length),
             message("between 0 and kv_len = ", kv_len));
      }
    }
  }

  void position(int64_t n, const std::string& name, int64_t least) const {
    if (n < least || n > kMaxSize) {
      fail(name, message("got ", n), message("between ", least, " and ", kMaxSize));
    }
  }

  void modifiers() const {
    const ScoreMod& mod = call_.score_mod;
    if (mod.forward == nullptr && (mod.backward != nullptr || mod.is_empty != nullptr)) {
      fail("score_mod.forward", "not given, but others of it", "given");
    }
    const int64_t longest = std::max(call_.q_len(), call_.kv_len());
    if (mod.forward != nullptr && longest > std::numeric_limits<int32_t>::max()) {
      fail("score_mod", message("given, with ", longest, " positions"), "without, beyond 2^31 - 1");
    }
    if (call_.softcap != 0) {
      if (!(call_.softcap > 0)) fail("softcap", message("got ", call_.softcap), "0 or more");
      number(call_.softcap, "softcap");
      number(1 / call_.softcap, "1 / softcap");
    }
    if (!call_.sinks.defined()) return;
    tensor(call_.sinks, "sinks", 1);
    size(call_.sinks, "sinks", 0, "num_heads", call_.num_heads());
  }

  void alibi(const Mask& mask, const std::string& name) const {
    const ConstTensorView& slopes = mask.tensor();
    const int64_t heads = call_.num_heads(), items = call_.num_sequences();
    const int rank = slopes.rank();
    const bool fits = slopes.defined() && (rank == 1 || (rank == 2 && slopes.size(0) == items)) &&
                      slopes.size(rank - 1) == heads;
    if (!fits) {
      fail(name, slopes.defined() ? "shape is " + slopes.shape_string() : "not given",
           message("[", heads, "] or [", items, ", ", heads, "]"));
    }
    if (slopes.dtype() != DType::kFloat32 && slopes.dtype() != DType::kFloat64) {
      fail(name, message("dtype is ", dtype_name(slopes.dtype())), "float32 or float64");
    }
    for (int64_t n = 0; n < slopes.numel(); ++n) slope(mask, n / heads, n % heads, name);
  }

  // A product that overflowed would hide pairs, on some paths of the kernels alone.
  void slope(const Mask& mask, int64_t b, int64_t h, const std::string& name) const {
    const double slope = alibi_slope(mask, b, h);
    const int64_t farthest = call_.q_len() + call_.kv_len() + std::abs(mask.offset().number());
    constexpr double kRounding = 1 + 0x1p-20;  // more than that of a float32 product can be
    if (is_finite(slope) && is_finite(slope * static_cast<double>(farthest) * kRounding)) return;
    fail(name, message("the slope of head ", h, " is ", slope),
         message("a finite ", dtype_name(call_.query.dtype()), ", also times the distance ",
                 farthest));
  }

  void segments(const ConstTensorView& ids, const std::string& name, int64_t count) const {
    const int rank = ids.rank();
    const bool fits = ids.defined() && (rank == 1 || (rank == 2 && ids.size(0) == call_.batch())) &&
                      ids.size(rank - 1) == count;
    if (!fits) {
      fail(name, ids.defined() ? "shape is " + ids.shape_string() : "not given",
           message("[", count, "] or [", call_.batch(), ", ", count, "]"));
    }
    if (ids.dtype() != DType::kInt32 && ids.dtype() != DType::kInt64) {
      fail(name, message("dtype is ", dtype_name(ids.dtype())), "int32 or int64");
    }
  }

  void mask(const Mask& mask, const std::string& name) const {
    if (mask.kind() == Mask::Kind::kKeyLengths) return key_lengths(mask.tensor(), name);
    if (mask.kind() == Mask::Kind::kSegments) {
      segments(mask.tensor(), name + ".query_ids", call_.q_len());
      segments(mask.key_ids(), name + ".key_ids", call_.kv_len());
      const DType dtype = mask.tensor().dtype();
      if (mask.key_ids().dtype() == dtype) return;
      fail(name + ".key_ids", message("dtype is ", dtype_name(mask.key_ids().dtype())),
           message("query_ids's ", dtype_name(dtype)));
    }
    if (!is_tensor_mask(mask)) {
      position(mask.offset().number(), name + ".offset", -kMaxSize);
      if (mask.kind() == Mask::Kind::kAlibi) alibi(mask, name);
      position(mask.left(), name + ".left", Mask::kUnbounded);
      position(mask.right(), name + ".right", Mask::kUnbounded);
      return;
    }
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
    apart_from_inputs(view, name);
    separate(
        view, name,
        {&call_.outputs.out, &call_.outputs.lse, &call_.outputs.lse_rest, &call_.outputs.weights});
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

}  // namespace polyhead
