#include "trace.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "numbers.h"

namespace polyhead::cli {
namespace {

// More (head, query, key) triples than this are cut to fewer queries: about a second of work.
constexpr int64_t kMostPairs = 1 << 20;

// Queries [first, first + count) of the first batch item.
struct Part {
  int64_t first = 0, count = 0;
};

// The size is 1 where a mask is broadcast.
ConstTensorView narrowed(const ConstTensorView& mask, int dim, int64_t first, int64_t count) {
  return mask.size(dim) == 1 ? mask : mask.narrow(dim, first, count);
}

// The mask of the part: 2-D [L, S], 3-D [B * H, L, S] or [H, L, S], 4-D.
ConstTensorView part_of_mask(const ConstTensorView& mask, int64_t num_heads, const Part& part) {
  if (!mask.defined() || mask.rank() < 2) return mask;
  const ConstTensorView rows = narrowed(mask, mask.rank() - 2, part.first, part.count);
  if (mask.rank() == 3 && mask.size(0) > num_heads) return rows.narrow(0, 0, num_heads);
  return mask.rank() == 4 ? narrowed(rows, 0, 0, 1) : rows;
}

bool aligned_to_end(const Job& job) {
  return job.arguments().causal_align == CausalAlign::kBottomRight;
}

// A causal triangle stays where it is if the rows kept are those at its corner.
Part choose_part(const Job& job, int64_t q_len, int64_t columns) {
  const int64_t most = kMostPairs / std::max<int64_t>(1, job.num_heads() * columns);
  const int64_t count = std::min(q_len, std::max<int64_t>(most, 1));
  return {aligned_to_end(job) ? q_len - count : 0, count};
}

ModuleReference reference_of(const Job& job, const Trace& trace) {
  const Part part{trace.first_row, trace.rows};
  const ConstTensorView query = trace.query.unsqueezed(0), key = trace.key.unsqueezed(0),
                        value = trace.value.unsqueezed(0);
  if (const FromScratchMultiHeadAttention* scratch = job.scratch()) {
    const ConstTensorView mask = part_of_mask(job.scratch_mask(), job.num_heads(), part);
    return module_forward_reference(*scratch, query, key, value, mask);
  }
  ForwardOptions options = job.options(WeightsMode::kNone);
  options.attn_mask = part_of_mask(options.attn_mask, job.num_heads(), part);
  if (options.key_padding_mask.rank() == 2) {
    options.key_padding_mask = options.key_padding_mask.narrow(0, 0, 1);
  } else if (options.key_padding_mask.defined()) {
    options.key_padding_mask = options.key_padding_mask.unsqueezed(0);
  }
  if (job.arguments().sequence_first) {
    return module_forward_reference(*job.mha(), query.transposed(0, 1), key.transposed(0, 1),
                                    value.transposed(0, 1), options);
  }
  return module_forward_reference(*job.mha(), query, key, value, options);
}

bool has_parameter(const Job& job, const std::string& name) {
  const StateDict parameters = state_dict_of(job);
  return std::any_of(parameters.begin(), parameters.end(),
                     [&](const auto& parameter) { return parameter.first == name; });
}

// Item 0, head `head` of a [1, num_heads, rows, columns] tensor.
Matrix head_of(const Tensor& tensor, int64_t head) {
  return matrix_of(tensor.view().select(0, 0).select(0, head));
}

}  // namespace

double Trace::scale() const { return 1 / std::sqrt(static_cast<double>(head_dim)); }

Trace trace_first_item(const Job& job) {
  if (job.mha() &&
      (job.mha()->config().qk_norm || job.mha()->config().rope.pairs != RopePairs::kNone)) {
    throw Unsupported(
        "explain: the module has norms of query and key or rotary positions, which are no steps "
        "here "
        "yet; use run or verify");
  }
  Trace trace;
  const ConstTensorView query = job.batch_first(job.query()).select(0, 0);  // [q_len, E]
  trace.key = job.batch_first(job.key()).select(0, 0);
  trace.value = job.batch_first(job.value()).select(0, 0);
  trace.num_heads = job.num_heads();
  trace.head_dim = job.head_dim();
  trace.has_in_bias = has_parameter(job, "in_proj_bias") || has_parameter(job, "q_linear.bias");
  trace.has_out_bias = has_parameter(job, "out_proj.bias") || has_parameter(job, "fc_out.bias");
  trace.has_bias_kv = has_parameter(job, "bias_k");
  trace.has_masks = masks_given(job.arguments());
  trace.columns = trace.key.size(0) + trace.has_bias_kv + job.arguments().add_zero_attn;
  trace.q_len = query.size(0);
  const Part part = choose_part(job, trace.q_len, trace.columns);
  trace.first_row = part.first;
  trace.rows = part.count;
  trace.from_end = aligned_to_end(job);
  trace.query = query.narrow(0, part.first, part.count);
  trace.steps = reference_of(job, trace);
  return trace;
}

StateDict state_dict_of(const Job& job) {
  return job.mha() ? job.mha()->state_dict() : job.scratch()->state_dict();
}

bool masks_given(const ModuleArguments& a) {
  return !a.attn_mask.empty() || !a.key_padding_mask.empty() || a.causal || !a.scratch_mask.empty();
}

Matrix matrix_of(const ConstTensorView& view) {
  return {view.size(0), view.size(1), numbers_of(view)};
}

const Tensor& projection(const Trace& trace, Operand operand) {
  return operand == Operand::kQuery ? trace.steps.query
         : operand == Operand::kKey ? trace.steps.key
                                    : trace.steps.value;
}

Matrix head_operand(const Trace& trace, Operand operand, int64_t head) {
  const ModuleReference& steps = trace.steps;
  const ConstTensorView rows = projection(trace, operand).view().select(0, 0);  // [len, width]
  // Fewer heads of key and value serve several of the query's each.
  head /= trace.num_heads / (rows.size(1) / trace.head_dim);
  Matrix matrix = matrix_of(rows.narrow(1, head * trace.head_dim, trace.head_dim));
  const Tensor& extra = operand == Operand::kKey ? steps.extra_key : steps.extra_value;
  if (operand == Operand::kQuery || !extra.defined()) return matrix;
  const Matrix appended = matrix_of(extra.view().select(0, head));  // [extra, head_dim]
  matrix.rows += appended.rows;
  matrix.numbers.insert(matrix.numbers.end(), appended.numbers.begin(), appended.numbers.end());
  return matrix;
}

// The reference scales as it goes: dividing gives the sum back, but for one rounding.
Matrix head_unscaled(const Trace& trace, int64_t head) {
  Matrix unscaled = head_scores(trace, head);
  for (double& score : unscaled.numbers) score /= trace.scale();
  return unscaled;
}

Matrix head_scores(const Trace& trace, int64_t head) { return head_of(trace.steps.scores, head); }
Matrix head_bias(const Trace& trace, int64_t head) { return head_of(trace.steps.bias, head); }
Matrix head_weights(const Trace& trace, int64_t head) { return head_of(trace.steps.probs, head); }

Matrix head_masked(const Trace& trace, int64_t head) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  Matrix masked = head_scores(trace, head);
  const Matrix bias = head_bias(trace, head);
  for (size_t n = 0; n < masked.numbers.size(); ++n) {
    // Whatever the score of a hidden pair is, NaN included, it is not looked at.
    masked.numbers[n] = bias.numbers[n] == -kInf ? -kInf : masked.numbers[n] + bias.numbers[n];
  }
  return masked;
}

Matrix head_out(const Trace& trace, int64_t head) {
  const ConstTensorView heads = trace.steps.heads.view().select(0, 0);  // [rows, width]
  return matrix_of(heads.narrow(1, head * trace.head_dim, trace.head_dim));
}

Matrix traced_out(const Job& job, const Trace& trace) {
  const ConstTensorView out = trace.steps.out;
  // The reference was called with 3-D inputs, whatever the job's are.
  return matrix_of(job.arguments().sequence_first && job.mha() ? out.select(1, 0)
                                                               : out.select(0, 0));
}

Matrix fast_out(const Job& job, const Job::Result& result, const Trace& trace) {
  const ConstTensorView item = job.batch_first(result.out.view()).select(0, 0);  // [q_len, E]
  return matrix_of(item.narrow(0, trace.first_row, trace.rows));
}

double largest_difference(const Matrix& a, const Matrix& b) {
  double largest = 0;
  for (size_t n = 0; n < a.numbers.size(); ++n) {
    const double x = a.numbers[n], y = b.numbers[n];
    if (x == y || (std::isnan(x) && std::isnan(y))) continue;
    const double difference = std::abs(x - y);
    largest = std::isnan(difference) ? INFINITY : std::max(largest, difference);
  }
  return largest;
}

}  // namespace polyhead::cli
