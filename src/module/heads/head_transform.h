// What stands between the projections of query and key and the scores: the norm of each head and
// its rotation, of all tokens, on the threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <polyhead/tensor_view.h>
#include "module/attention_parameters.h"

namespace polyhead {

// Query or key by heads, [batch, heads, len, head_dim], whose numbers of a head lie side by side.
struct HeadsToTransform {
  ConstTensorView from = {};
  TensorView to = {};         // may be `from`; without a norm it must be
  ConstTensorView norm = {};  // [head_dim]; undefined: none
  int64_t position = 0;       // of the first token
};

struct HeadsToPullBack {
  HeadsToTransform forward = {};  // `to` is not looked at
  TensorView gradient = {};       // of what came out, then of what went in
  TensorView d_norm = {};         // [num_blocks(len), head_dim], with a norm: to be summed up
};

class HeadTransform {
 public:
  explicit HeadTransform(const AttentionSizes& sizes);

  // Throws std::bad_alloc.
  void run(const HeadsToTransform& query, const HeadsToTransform& key) const;
  void run_backward(const HeadsToPullBack& heads) const;
  // Takes the memory that run_backward will want, as reserve_task_memory does.
  void reserve_backward(const ConstTensorView& heads) const;

  // Tokens are taken in blocks of so many positions: a block's sums go into a row of d_norm.
  static constexpr int64_t kBlock = 32;
  static int64_t num_blocks(int64_t len) { return (len + kBlock - 1) / kBlock; }

 private:
  double flops(const ConstTensorView& heads) const;
  size_t row_bytes() const;  // of the cosines and sines of one position
  size_t backward_bytes(int64_t head_dim) const;

  DType dtype_;
  double epsilon_;
  Rope rope_;
  std::vector<uint64_t> steps_;
};

}  // namespace polyhead
