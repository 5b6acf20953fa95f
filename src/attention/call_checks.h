// The parts that the checks of a call are made of.
#pragma once

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string>

#include <polyhead/error.h>
#include "attention/attention_call.h"
#include "base/message.h"

namespace polyhead {

// The bytes from a view's first element to its last, and whether it fills them without gaps.
struct Extent {
  uintptr_t begin = 0, end = 0;
  bool dense = true;
};

inline Extent extent_of(const ConstTensorView& view) {
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
inline bool overlap(const Extent& a, const Extent& b) {
  const bool meet = a.begin < b.end && b.begin < a.end;
  return meet && ((a.dense && b.dense) || a.begin == b.begin);
}

// fail(got, need) unless an output has memory of its own: once for each element, and apart from
// `others` (which may hold the output itself).
template <class Fail>
void check_separate(const ConstTensorView& output,
                    std::initializer_list<const ConstTensorView*> others, const Fail& fail) {
  for (int dim = 0; dim < output.rank(); ++dim) {
    if (output.size(dim) > 1 && output.stride(dim) == 0) {
      fail(message("stride ", dim, " is 0"), "memory of its own for each element");
    }
  }
  for (const ConstTensorView* other : others) {
    if (other != &output && overlap(extent_of(output), extent_of(*other))) {
      fail("overlaps another tensor of the call", "memory of its own");
    }
  }
}

class CallChecks {
 public:
  CallChecks(const AttentionCall& call, const char* function) : call_(call), function_(function) {}

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

  // Finite also in the query's dtype.
  bool is_finite(double x) const {
    const bool is_float = call_.query.dtype() == DType::kFloat32;
    const double limit =
        is_float ? std::numeric_limits<float>::max() : std::numeric_limits<double>::max();
    return std::abs(x) <= limit;
  }
  void number(double x, const std::string& name) const {
    if (!is_finite(x)) {
      fail(name, message("got ", x), message("a finite ", dtype_name(call_.query.dtype())));
    }
  }

  // [B, H, L, columns].
  void rows(const ConstTensorView& view, const char* name, const char* columns,
            int64_t need) const {
    tensor(view, name, 4);
    size(view, name, 0, "batch", call_.batch());
    size(view, name, 1, "num_heads", call_.num_heads());
    size(view, name, 2, "q_len", call_.q_len());
    size(view, name, 3, columns, need);
  }

  // [B, H, L].
  void lse(const ConstTensorView& view, const char* name) const {
    tensor(view, name, 3);
    size(view, name, 0, "batch", call_.batch());
    size(view, name, 1, "num_heads", call_.num_heads());
    size(view, name, 2, "q_len", call_.q_len());
  }

  // In the shape that the call's weights_mode says.
  void weights(const ConstTensorView& view, const char* name) const {
    const bool per_head = call_.weights_mode == WeightsMode::kPerHead;
    const int rank = per_head ? 4 : 3;
    tensor(view, name, rank);
    size(view, name, 0, "batch", call_.batch());
    if (per_head) size(view, name, 1, "num_heads", call_.num_heads());
    size(view, name, rank - 2, "q_len", call_.q_len());
    size(view, name, rank - 1, "kv_len", call_.kv_len() + call_.num_extra());
  }

  void separate(const ConstTensorView& output, const std::string& name,
                std::initializer_list<const ConstTensorView*> others) const {
    check_separate(output, others,
                   [&](const std::string& got, const char* need) { fail(name, got, need); });
  }

  // From all that the call reads.
  void apart_from_inputs(const ConstTensorView& output, const std::string& name) const {
    separate(output, name,
             {&call_.query, &call_.key, &call_.value, &call_.extra_key, &call_.extra_value,
              &call_.sinks, &call_.cu_seqlens_q, &call_.cu_seqlens_k});
    for (const Mask& mask : call_.masks) separate(output, name, {&mask.tensor(), &mask.key_ids()});
  }

 protected:
  const AttentionCall& call_;
  const char* function_;
};

}  // namespace polyhead
