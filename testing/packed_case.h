// A packed batch: sequences of unequal lengths, one after the other in tensors of batch 1.
//
//   const PackedProblem packed({{5, 0, 70}, {9, 3, 70}}, {.masks = {{.kind = kCausal}}});
//   AttentionRun run = run_attention_case(packed.call());
#pragma once

#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "testing/attention_case.h"

namespace polyhead::oracle {

struct Lengths {
  std::vector<int64_t> queries, keys;
};

class PackedProblem {
 public:
  // The lengths of `spec` are replaced by their sums.
  PackedProblem(const Lengths& lengths, AttentionCase spec)
      : queries_(sums(lengths.queries)),
        keys_(sums(lengths.keys)),
        problem(with_lengths(std::move(spec), queries_.back(), keys_.back())) {}

  AttentionCall call() const { return packed(problem.call()); }
  // The call as a packed one.
  AttentionCall packed(AttentionCall call) const {
    call.cu_seqlens_q = view(queries_);
    call.cu_seqlens_k = view(keys_);
    return call;
  }

 private:
  static std::vector<int32_t> sums(const std::vector<int64_t>& lengths) {
    std::vector<int32_t> bounds = {0};
    for (int64_t n : lengths) bounds.push_back(bounds.back() + static_cast<int32_t>(n));
    return bounds;
  }
  static AttentionCase with_lengths(AttentionCase spec, int64_t q_len, int64_t kv_len) {
    spec.q_len = q_len;
    spec.kv_len = kv_len;
    return spec;
  }
  static ConstTensorView view(const std::vector<int32_t>& bounds) {
    return {bounds.data(), {static_cast<int64_t>(bounds.size())}};
  }

  std::vector<int32_t> queries_, keys_;

 public:
  AttentionProblem problem;
};

// Of every kind: none, few rows, whole tiles and not, several chunks.
inline std::vector<Lengths> some_lengths() {
  return {{{5}, {9}},
          {{1, 2, 3}, {4, 0, 70}},
          {{0, 48, 0, 50, 3}, {7, 48, 0, 61, 600}},
          {{17, 100, 16, 0}, {1100, 20, 8, 8}},
          {{0, 0}, {0, 5}}};
}

}  // namespace polyhead::oracle
