// The part of a job that `explain` shows: one batch item in double, every intermediate kept.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "job.h"
#include "matrix_text.h"
#include "module/module_reference.h"

namespace polyhead::cli {

struct Trace {
  ModuleReference steps;  // of the first batch item, batch of 1, queries [first_row, + rows)
  ConstTensorView query, key, value;  // its inputs: [rows, E], [kv_len, kdim], [kv_len, vdim]
  int64_t q_len = 0, first_row = 0, rows = 0;
  bool from_end = false;  // the causal triangle's corner is at the last query and key
  int64_t columns = 0;    // kv_len, bias_k's and zero_attn's columns included
  int64_t num_heads = 0, head_dim = 0;
  bool has_in_bias = false, has_out_bias = false, has_bias_kv = false, has_masks = false;

  double scale() const;  // 1 / sqrt(head_dim)
};

// The job's inputs must have been accepted by a forward. Queries beyond what can be read are left
// out: the double reference is slow, and keeps every score.
Trace trace_first_item(const Job& job);

enum class Operand { kQuery, kKey, kValue };

using StateDict = std::vector<std::pair<std::string, ConstTensorView>>;
StateDict state_dict_of(const Job& job);
bool masks_given(const ModuleArguments& arguments);

Matrix matrix_of(const ConstTensorView& view);                  // [rows, columns], any dtype
const Tensor& projection(const Trace& trace, Operand operand);  // [1, len, width]
// One head's columns of a projection, with what is appended to keys and values.
Matrix head_operand(const Trace& trace, Operand operand, int64_t head);  // [len, head_dim]
Matrix head_unscaled(const Trace& trace, int64_t head);                  // scores before scaling
Matrix head_scores(const Trace& trace, int64_t head);                    // scaled
Matrix head_bias(const Trace& trace, int64_t head);
Matrix head_masked(const Trace& trace, int64_t head);  // scaled + bias; -inf where hidden
Matrix head_weights(const Trace& trace, int64_t head);
Matrix head_out(const Trace& trace, int64_t head);  // [rows, head_dim]

Matrix traced_out(const Job& job, const Trace& trace);  // [rows, E]
// The same rows of what the fast path gave.
Matrix fast_out(const Job& job, const Job::Result& result, const Trace& trace);
// NaN beside NaN is no difference.
double largest_difference(const Matrix& a, const Matrix& b);

}  // namespace polyhead::cli
