#include "module/module_reference.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include <polyhead/error.h>
#include "attention/attention_reference.h"
#include "base/message.h"
#include "module/double_parameters.h"
#include "module/forward_inputs.h"
#include "module/heads/head_rows_reference.h"
#include "module/projected_attention.h"

namespace polyhead {
namespace {

// What is per pair of query and key is worked out for so many pairs at a time.
constexpr int64_t kPairsAtOnce = 1 << 16;
constexpr double kMaxBytes = 0x1p33;

Tensor rounded(const Tensor& numbers, DType dtype) {
  if (!numbers.defined() || dtype == DType::kFloat64) return numbers;
  Tensor result(DType::kFloat32, numbers.shape());
  for (int64_t i = 0; i < numbers.numel(); ++i) {
    result.data_as<float>()[i] = static_cast<float>(numbers.data_as<double>()[i]);
  }
  return result;
}

struct WithBudget {
  Tensor values, budget;  // of one shape
};

// y = x . weight^T + bias, x [batch, len, in]. `x_budget` (undefined: x is exact) adds up through
// the absolute weights.
WithBudget linear(const Tensor& x, const Tensor& x_budget, const Tensor& weight, const Tensor& bias,
                  double u) {
  const int64_t rows = x.size(0) * x.size(1), in = weight.size(1), out = weight.size(0);
  WithBudget y{Tensor(DType::kFloat64, {x.size(0), x.size(1), out}), {}};
  y.budget = y.values;
  const double roundings = u * (std::sqrt(static_cast<double>(in)) + 2);
  const auto* from = x.data_as<double>();
  const auto* error = x_budget.defined() ? x_budget.data_as<double>() : nullptr;
  for (int64_t n = 0; n < rows * out; ++n) {
    const int64_t row = n / out * in, column = n % out * in;
    double sum = bias.defined() ? bias.data_as<double>()[n % out] : 0;
    double magnitude = std::abs(sum), carried = 0;
    for (int64_t i = 0; i < in; ++i) {
      const double w = weight.data_as<double>()[column + i];
      sum += from[row + i] * w;
      magnitude += std::abs(from[row + i] * w);
      if (error != nullptr) carried += error[row + i] * std::abs(w);
    }
    y.values.data_as<double>()[n] = sum;
    y.budget.data_as<double>()[n] = roundings * magnitude + carried;
  }
  return y;
}

// [batch, len, width] seen by head: [batch, heads, len, head_dim].
ConstTensorView by_head(const Tensor& rows, int64_t head_dim) {
  const int64_t batch = rows.size(0), len = rows.size(1), width = rows.size(2);
  const int64_t shape[] = {batch, width / head_dim, len, head_dim};
  const int64_t strides[] = {len * width, head_dim, width, 1};
  return {rows.data(), rows.dtype(), shape, strides};
}

// One forward on its way through the steps.
class Steps {
 public:
  Steps(const AttentionSizes& sizes, const DoubleParameters& parameters,
        const ForwardInputs& inputs)
      : sizes_(sizes),
        parameters_(parameters),
        inputs_(inputs),
        u_(sizes.dtype == DType::kFloat32 ? 0x1p-24 : 0x1p-53) {}

  ModuleReference run(EmptyRow empty_rows, WeightsMode mode, ReferenceSteps steps) {
    require_memory(mode, steps);
    project();
    result_.heads = Tensor(DType::kFloat64, {batch(), q_len(), sizes_.width()});
    heads_budget_ = result_.heads;
    if (mode != WeightsMode::kNone) {
      result_.weights = Tensor(DType::kFloat64, weights_shape(inputs_, sizes_, mode));
      result_.weights_budget = result_.weights;
    }
    const bool all = steps == ReferenceSteps::kAll;
    const int64_t pairs = batch() * sizes_.num_heads * inputs_.columns;  // of one query
    const int64_t at_once = kPairsAtOnce / std::max<int64_t>(pairs, 1);
    do {
      rows_ = all ? q_len() : std::min(std::max<int64_t>(at_once, 1), q_len() - first_);
      attend_rows(empty_rows, mode);
      first_ += rows_;
    } while (first_ < q_len());
    if (all) {
      first_ = 0;
      add_scores();
    } else {
      result_.bias = result_.probs = Tensor();
    }
    WithBudget out =
        linear(result_.heads, heads_budget_, parameters_.out_weight, parameters_.out_bias, u_);
    result_.out = in_layout(out.values);
    result_.out_budget = in_layout(out.budget);
    return std::move(result_);
  }

 private:
  int64_t batch() const { return inputs_.batch(); }
  int64_t q_len() const { return inputs_.q_len(); }
  int64_t kv_len() const { return inputs_.kv_len(); }
  Tensor matrix() const {  // one number for each pair
    return Tensor(DType::kFloat64, {batch(), sizes_.num_heads, rows_, inputs_.columns});
  }

  void require_memory(WeightsMode mode, ReferenceSteps steps) const {
    const double query = 8.0 * static_cast<double>(batch() * inputs_.columns);  // bytes per head
    const auto heads = static_cast<double>(sizes_.num_heads);
    const double weights = mode == WeightsMode::kNone      ? 0
                           : mode == WeightsMode::kAverage ? 1
                                                           : heads;
    // Weights and their budget; and scores, bias, probs, their budget, and the op's own of both.
    const double all = steps == ReferenceSteps::kAll ? 6 * heads : 0;
    const double bytes = query * static_cast<double>(q_len()) * (2 * weights + all);
    if (bytes <= kMaxBytes) return;
    throw Unsupported(message("the double reference: ", q_len(), " queries and ", inputs_.columns,
                              " keys take ", static_cast<int64_t>(bytes), " bytes; at most ",
                              static_cast<int64_t>(kMaxBytes),
                              " are taken: use fewer queries or leave out the weights"));
  }

  // Queries [first_, first_ + rows_), from the masks to the heads.
  void attend_rows(EmptyRow empty_rows, WeightsMode mode) {
    add_bias();
    attend(empty_rows);
    carry_projection_errors();
    if (mode == WeightsMode::kNone) return;
    add_weights(result_.probs, mode, result_.weights);
    add_weights(probs_budget_, mode, result_.weights_budget);
  }

  void project() {
    const DoubleParameters& p = parameters_;
    q_ = linear(as_double(inputs_.query), {}, p.q_weight, p.q_bias, u_);
    k_ = linear(as_double(inputs_.key), {}, p.k_weight, p.k_bias, u_);
    v_ = linear(as_double(inputs_.value), {}, p.v_weight, p.v_bias, u_);
    if (sizes_.transforms()) {
      transform(q_, p.q_norm, inputs_.positions[0]);
      transform(k_, p.k_norm, inputs_.positions[1]);
    }
    result_.query = q_.values;
    result_.key = k_.values;
    result_.value = v_.values;
    rounded_query_ = rounded(q_.values, sizes_.dtype);
    rounded_key_ = rounded(k_.values, sizes_.dtype);
    rounded_value_ = rounded(v_.values, sizes_.dtype);
    AttentionSizes in_double = sizes_;
    in_double.dtype = DType::kFloat64;
    result_.extra_key = extra_columns(in_double, p.bias_k);
    result_.extra_value = extra_columns(in_double, p.bias_v);
  }

  // Each head of each token through norm and rotation.
  void transform(WithBudget& rows, const Tensor& norm, int64_t first) const {
    const int64_t dim = sizes_.head_dim, len = rows.values.size(1), width = rows.values.size(2);
    RowNumbers row(static_cast<size_t>(dim));
    for (int64_t n = 0; n < rows.values.numel(); n += dim) {
      auto *values = rows.values.data_as<double>() + n, *budget = rows.budget.data_as<double>() + n;
      for (int64_t d = 0; d < dim; ++d) row[static_cast<size_t>(d)] = {values[d], budget[d]};
      const auto* weight = norm.defined() ? norm.data_as<double>() : nullptr;
      transform_reference(row, sizes_, weight, first + n / width % len, u_);
      for (const RowNumber& number : row) {
        *values++ = number.value;
        *budget++ = number.error;
      }
    }
  }

  // The op on operands of one dtype; masks are summed in the dtype of the query.
  AttentionCall call(const Tensor& query, const Tensor& key, const Tensor& value) const {
    AttentionCall call{.query = by_head(query, sizes_.head_dim),
                       .key = by_head(key, sizes_.head_dim),
                       .value = by_head(value, sizes_.head_dim)};
    call.scale = attention_scale(sizes_);
    call.masks = inputs_.masks.span();
    return call;
  }

  void add_bias() {
    const AttentionCall as_module = call(rounded_query_, rounded_key_, rounded_value_);
    result_.bias = matrix();
    auto* to = result_.bias.data_as<double>();
    for (int64_t n = 0; n < result_.bias.numel(); ++n) {
      const Pair pair = pair_of(n);
      if (pair.j >= kv_len()) continue;  // appended columns are never masked
      to[n] = attention_bias_reference(as_module, pair.b, pair.h, pair.i, pair.j);
    }
  }

  // Element d of key or value j as query head h sees it, the appended ones after the others.
  double at(const Tensor& rows, const Tensor& extra, int64_t b, int64_t h, int64_t j,
            int64_t d) const {
    const int64_t dim = sizes_.head_dim, kv_head = sizes_.kv_head(h);
    if (j < kv_len()) {
      return rows.data_as<double>()[(b * kv_len() + j) * sizes_.kv_width() + kv_head * dim + d];
    }
    if (!extra.defined()) return 0;  // the budget of an appended column: it is exact
    return extra.data_as<double>()[(kv_head * sizes_.num_extra() + j - kv_len()) * dim + d];
  }

  void add_scores() {
    result_.scores = matrix();
    auto* to = result_.scores.data_as<double>();
    for (int64_t n = 0; n < result_.scores.numel(); ++n) {
      const Pair pair = pair_of(n);
      double dot = 0;
      for (int64_t d = 0; d < sizes_.head_dim; ++d) {
        dot += result_.query.data_as<double>()[pair.query + d] *
               at(result_.key, result_.extra_key, pair.b, pair.h, pair.j, d);
      }
      to[n] = attention_scale(sizes_) * dot;
    }
  }

  // The op on the queries at hand. Their masks are in the bias: a causal one asks which query.
  AttentionReference attend(AttentionCall call, const Mask& bias, bool budget) const {
    call.query = call.query.narrow(2, first_, rows_);
    call.masks = {&bias, 1};
    return attention_forward_reference(call, {.probs = true, .budget = budget});
  }

  void attend(EmptyRow empty_rows) {
    const Mask bias = Mask::additive(result_.bias.view().narrow(3, 0, kv_len()));
    AttentionCall exact = call(result_.query, result_.key, result_.value);
    exact.extra_key = result_.extra_key;
    exact.extra_value = result_.extra_value;
    exact.empty_rows = empty_rows;
    AttentionReference truth = attend(exact, bias, false);
    result_.probs = std::move(truth.probs);
    join_heads(truth.out, result_.heads);

    // The op's own budget, for operands in the module's dtype.
    const Tensor extra_key = rounded(result_.extra_key, sizes_.dtype),
                 extra_value = rounded(result_.extra_value, sizes_.dtype);
    AttentionCall as_module = call(rounded_query_, rounded_key_, rounded_value_);
    as_module.extra_key = extra_key.view();
    as_module.extra_value = extra_value.view();
    AttentionReference own = attend(as_module, bias, true);
    probs_budget_ = std::move(own.probs_budget);
    join_heads(own.out_budget, heads_budget_);
  }

  // [batch, num_heads, rows, head_dim] to its place in [batch, q_len, width].
  void join_heads(const Tensor& by_head, Tensor& joined) const {
    const int64_t dim = sizes_.head_dim, heads = sizes_.num_heads;
    for (int64_t n = 0; n < by_head.numel() / std::max<int64_t>(dim, 1); ++n) {
      const int64_t i = first_ + n % rows_, h = n / rows_ % heads, b = n / rows_ / heads;
      std::copy_n(by_head.data_as<double>() + n * dim, dim,
                  joined.data_as<double>() + (b * q_len() + i) * sizes_.width() + h * dim);
    }
  }

  struct Pair {
    int64_t b, h, i, j;
    int64_t query;  // offset of the head's first element in the projected queries
  };
  Pair pair_of(int64_t n) const {
    Pair pair{};
    pair.j = n % inputs_.columns;
    pair.i = first_ + n / inputs_.columns % rows_;
    pair.h = n / inputs_.columns / rows_ % sizes_.num_heads;
    pair.b = n / inputs_.columns / rows_ / sizes_.num_heads;
    pair.query = (pair.b * q_len() + pair.i) * sizes_.width() + pair.h * sizes_.head_dim;
    return pair;
  }

  // ds_ij of the header.
  double score_error(const Pair& pair) const {
    double squares = 0;
    for (int64_t d = 0; d < sizes_.head_dim; ++d) {
      const auto n = static_cast<size_t>(pair.query + d);
      const double from_query = q_.budget.data_as<double>()[n] *
                                at(result_.key, result_.extra_key, pair.b, pair.h, pair.j, d);
      const double from_key =
          result_.query.data_as<double>()[n] * at(k_.budget, {}, pair.b, pair.h, pair.j, d);
      squares += from_query * from_query + from_key * from_key;
    }
    return attention_scale(sizes_) * std::sqrt(squares);
  }

  // What errors of q, k and v do to weights and heads, row by row of the score matrix.
  void carry_projection_errors() {
    const int64_t columns = inputs_.columns;
    const auto* probs = result_.probs.data_as<double>();
    std::vector<double> error(static_cast<size_t>(columns));
    for (int64_t row = 0; columns != 0 && row < result_.probs.numel() / columns; ++row) {
      const double* p = probs + row * columns;
      double mean = 0;
      for (int64_t j = 0; j < columns; ++j) {
        double& ds = error[static_cast<size_t>(j)];
        ds = p[j] > 0 ? score_error(pair_of(row * columns + j)) : 0;
        mean += p[j] * ds;
      }
      for (int64_t j = 0; j < columns; ++j) {
        double& dp = error[static_cast<size_t>(j)];
        dp = p[j] > 0 ? p[j] * std::expm1(dp + mean) : 0;
        probs_budget_.data_as<double>()[row * columns + j] += dp;
      }
      carry_to_heads(pair_of(row * columns), p, error);
    }
  }

  void carry_to_heads(const Pair& row, const double* p, const std::vector<double>& dp) {
    for (int64_t d = 0; d < sizes_.head_dim; ++d) {
      double sum = 0, squares = 0;
      for (int64_t j = 0; j < inputs_.columns; ++j) {
        if (!(p[j] > 0)) continue;  // nothing of a masked value, be it NaN
        const double ev = p[j] * at(v_.budget, {}, row.b, row.h, j, d);
        sum += dp[static_cast<size_t>(j)] *
               std::abs(at(result_.value, result_.extra_value, row.b, row.h, j, d));
        squares += ev * ev;
      }
      heads_budget_.data_as<double>()[row.query + d] += sum + std::sqrt(squares);
    }
  }

  // [batch, q_len, embed_dim] as the caller sees it.
  Tensor in_layout(const Tensor& out) const {
    if (!inputs_.batched) return Tensor(out.view().select(0, 0));
    return inputs_.layout == Layout::kSequenceFirst ? Tensor(out.view().transposed(0, 1)) : out;
  }

  void add_weights(const Tensor& per_head, WeightsMode mode, Tensor& weights) const {
    const bool average = mode == WeightsMode::kAverage;
    const double parts = average ? static_cast<double>(sizes_.num_heads) : 1;
    const auto* from = per_head.data_as<double>();
    for (int64_t n = 0; n < per_head.numel(); ++n) {
      const Pair pair = pair_of(n);
      const int64_t head = average ? pair.b : pair.b * sizes_.num_heads + pair.h;
      const int64_t to = (head * q_len() + pair.i) * inputs_.columns + pair.j;
      weights.data_as<double>()[to] += from[n] / parts;
    }
  }

  const AttentionSizes& sizes_;
  const DoubleParameters& parameters_;
  const ForwardInputs& inputs_;
  double u_;
  WithBudget q_, k_, v_;                                // [batch, len, width | kv_width]
  Tensor rounded_query_, rounded_key_, rounded_value_;  // the same in the module's dtype
  Tensor heads_budget_, probs_budget_;                  // as heads and probs
  int64_t first_ = 0, rows_ = 0;                        // the queries at hand
  ModuleReference result_;
};

}  // namespace

ModuleReference module_forward_reference(const MultiheadAttention& module,
                                         const ConstTensorView& query, const ConstTensorView& key,
                                         const ConstTensorView& value,
                                         const ForwardOptions& options, ReferenceSteps steps) {
  const AttentionSizes sizes = sizes_of(module.config());
  const ForwardInputs inputs =
      check_mha_inputs(sizes, module.config().layout, query, key, value, options);
  const DoubleParameters parameters = double_parameters(module);
  return Steps(sizes, parameters, inputs).run(options.empty_rows, options.need_weights, steps);
}

ModuleReference module_forward_reference(const FromScratchMultiHeadAttention& module,
                                         const ConstTensorView& q, const ConstTensorView& k,
                                         const ConstTensorView& v, const ConstTensorView& mask,
                                         const ScratchReferenceOptions& options) {
  const AttentionSizes sizes = sizes_of(module);
  const ForwardInputs inputs = check_scratch_inputs(sizes, q, k, v, mask);
  const DoubleParameters parameters = double_parameters(module);
  return Steps(sizes, parameters, inputs).run(EmptyRow::kZero, options.need_weights, options.steps);
}

}  // namespace polyhead
