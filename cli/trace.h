// The part of a job that `explain` shows: one batch item in double, every intermediate kept.
#pragma once

#include <cstdint>

#include "job.h"
#include "matrix_text.h"
#include "module/module_reference.h"

namespace polyhead::cli {

struct Trace {
  ModuleReference steps;  // of the first batch item, batch of 1, queries [first_row, + rows)
  ConstTensorView query, key, value;  // its inputs: [rows, E], [kv_len, kdim], [kv_len, vdim]
  int64_t q_len = 0, first_row = 0, rows = 0;
  int64_t columns = 0;  // kv_len, bias_k's and zero_attn's columns included
  int64_t num_heads = 0, head_dim = 0;
  bool has_in_bias = false, has_out_bias = false, has_bias_kv = false, has_masks = false;

  double scale() const;  // 1 / sqrt(head_dim)
};

// The job's inputs must have been accepted by a forward. Queries beyond what can be read are left
// out: the double reference is slow, and keeps every score.
Trace trace_first_item(const Job& job);

enum class Operand { kQuery, kKey, kValue };

Matrix matrix_of(const ConstTensorView& view);  // [rows, columns], any dtype
// One head's columns of a projection, with what is appended to keys and values.
Matrix head_operand(const Trace& trace, Operand operand, int64_t head);  // [len, head_dim]
Matrix head_scores(const Trace& trace, int64_t head);                    // scaled
Matrix head_bias(const Trace& trace, int64_t head);
Matrix head_masked(const Trace& trace, int64_t head);  // scaled + bias; -inf where hidden
Matrix head_weights(const Trace& trace, int64_t head);
Matrix head_out(const Trace& trace, int64_t head);  // [rows, head_dim]

}  // namespace polyhead::cli
