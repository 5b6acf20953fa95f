// One attention problem to be timed: inputs, outputs, and the proof that the outputs are right.
#pragma once

#include <cstdint>
#include <string>

#include <polyhead/attention.h>
#include <polyhead/tensor_view.h>

namespace polyhead::bench {

enum class MaskKind { kNone, kCausal, kBoolean, kAdditive };

// Self-attention: as many keys as queries.
struct Cell {
  int64_t batch = 1, heads = 1, len = 1, head_dim = 64;
  MaskKind mask = MaskKind::kNone;
  DType dtype = DType::kFloat32;
  WeightsMode weights = WeightsMode::kNone;
  double dropout_p = 0;
  bool heads_inner = false;  // memory [B, L, H, D] instead of [B, H, L, D]
};

// Multiplications and additions of the two products, of the pairs that a causal mask leaves. Other
// masks lower it by nothing: who skips work under them is faster, not idle.
double useful_flops(const Cell& cell);

class Problem {
 public:
  // Normal inputs; a boolean mask hides a quarter of the pairs, an additive one holds normal
  // numbers.
  explicit Problem(const Cell& cell);
  Problem(const Problem&) = delete;
  Problem& operator=(const Problem&) = delete;

  void run();

  // Compares the outputs with the double reference: every row, or `rows_per_head` rows of each head
  // where all of them would take seconds. Empty if right, else what is wrong.
  std::string find_error(int64_t rows_per_head = 8) const;

  const Cell cell;
  Tensor query, key, value, out;  // in the cell's memory order
  Tensor mask, weights;           // not defined if there is none

 private:
  std::string find_error_in_rows(int64_t first, int64_t count) const;

  AttentionOptions options_;
  AttentionOutputs outputs_;
};

}  // namespace polyhead::bench
