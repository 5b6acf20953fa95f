#include "module/module_reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "attention/attention_reference.h"
#include "module/forward_inputs.h"
#include "module/projected_attention.h"

namespace polyhead {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

Tensor as_double(const ConstTensorView& view) {
  if (!view.defined()) return {};
  const Tensor rows(view);  // row-major
  if (rows.dtype() == DType::kFloat64) return rows;
  Tensor result(DType::kFloat64, rows.shape());
  for (int64_t i = 0; i < rows.numel(); ++i) {
    result.data_as<double>()[i] = static_cast<double>(rows.data_as<float>()[i]);
  }
  return result;
}

Tensor rounded(const Tensor& numbers, DType dtype) {
  if (!numbers.defined() || dtype == DType::kFloat64) return numbers;
  Tensor result(DType::kFloat32, numbers.shape());
  for (int64_t i = 0; i < numbers.numel(); ++i) {
    result.data_as<float>()[i] = static_cast<float>(numbers.data_as<double>()[i]);
  }
  return result;
}

// The parameters in double, by role, whichever class they come from.
struct DoubleParameters {
  Tensor q_weight, k_weight, v_weight, out_weight;  // [width, in] three times, [embed_dim, width]
  Tensor q_bias, k_bias, v_bias, out_bias;          // undefined without biases
  Tensor bias_k, bias_v;                            // [1, 1, width]
};

using StateDict = std::vector<std::pair<std::string, ConstTensorView>>;

ConstTensorView find(const StateDict& state_dict, const std::string& name) {
  for (const auto& [known, view] : state_dict) {
    if (known == name) return view;
  }
  return {};
}

// Rows [part * width, (part + 1) * width) of a packed parameter.
ConstTensorView third(const ConstTensorView& packed, int64_t part) {
  if (!packed.defined()) return {};
  return packed.narrow(0, part * (packed.size(0) / 3), packed.size(0) / 3);
}

DoubleParameters double_parameters(const MultiheadAttention& module) {
  const StateDict dict = module.state_dict();
  const ConstTensorView packed = find(dict, "in_proj_weight"), bias = find(dict, "in_proj_bias");
  const auto weight = [&](int64_t part, const char* separate) {
    return as_double(packed.defined() ? third(packed, part) : find(dict, separate));
  };
  return {.q_weight = weight(0, "q_proj_weight"),
          .k_weight = weight(1, "k_proj_weight"),
          .v_weight = weight(2, "v_proj_weight"),
          .out_weight = as_double(find(dict, "out_proj.weight")),
          .q_bias = as_double(third(bias, 0)),
          .k_bias = as_double(third(bias, 1)),
          .v_bias = as_double(third(bias, 2)),
          .out_bias = as_double(find(dict, "out_proj.bias")),
          .bias_k = as_double(find(dict, "bias_k")),
          .bias_v = as_double(find(dict, "bias_v"))};
}

DoubleParameters double_parameters(const FromScratchMultiHeadAttention& module) {
  const StateDict dict = module.state_dict();
  const auto get = [&](const char* name) { return as_double(find(dict, name)); };
  return {.q_weight = get("q_linear.weight"),
          .k_weight = get("k_linear.weight"),
          .v_weight = get("v_linear.weight"),
          .out_weight = get("fc_out.weight"),
          .q_bias = get("q_linear.bias"),
          .k_bias = get("k_linear.bias"),
          .v_bias = get("v_linear.bias"),
          .out_bias = get("fc_out.bias"),
          .bias_k = {},
          .bias_v = {}};
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

// [batch, len, width] seen by head: [batch, num_heads, len, head_dim].
ConstTensorView by_head(const Tensor& rows, const AttentionSizes& sizes) {
  const int64_t batch = rows.size(0), len = rows.size(1), width = sizes.width();
  const int64_t shape[] = {batch, sizes.num_heads, len, sizes.head_dim};
  const int64_t strides[] = {len * width, sizes.head_dim, width, 1};
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

  ModuleReference run(EmptyRow empty_rows, WeightsMode mode) {
    project();
    add_bias();
    add_scores();
    attend(empty_rows);
    carry_projection_errors();
    WithBudget out =
        linear(result_.heads, heads_budget_, parameters_.out_weight, parameters_.out_bias, u_);
    result_.out = in_layout(out.values);
    result_.out_budget = in_layout(out.budget);
    if (mode != WeightsMode::kNone) {
      result_.weights = weights(result_.probs, mode);
      result_.weights_budget = weights(probs_budget_, mode);
    }
    return std::move(result_);
  }

 private:
  int64_t batch() const { return inputs_.batch(); }
  int64_t q_len() const { return inputs_.q_len(); }
  int64_t kv_len() const { return inputs_.kv_len(); }
  Tensor matrix() const {  // one number for each pair
    return Tensor(DType::kFloat64, {batch(), sizes_.num_heads, q_len(), inputs_.columns});
  }

  void project() {
    const DoubleParameters& p = parameters_;
    q_ = linear(as_double(inputs_.query), {}, p.q_weight, p.q_bias, u_);
    k_ = linear(as_double(inputs_.key), {}, p.k_weight, p.k_bias, u_);
    v_ = linear(as_double(inputs_.value), {}, p.v_weight, p.v_bias, u_);
    result_.query = q_.values;
    result_.key = k_.values;
    result_.value = v_.values;
    AttentionSizes in_double = sizes_;
    in_double.dtype = DType::kFloat64;
    result_.extra_key = extra_columns(in_double, p.bias_k);
    result_.extra_value = extra_columns(in_double, p.bias_v);
  }

  // The op on operands of one dtype; masks are summed in the dtype of the query.
  AttentionCall call(const Tensor& query, const Tensor& key, const Tensor& value) const {
    AttentionCall call{.query = by_head(query, sizes_),
                       .key = by_head(key, sizes_),
                       .value = by_head(value, sizes_)};
    call.scale = attention_scale(sizes_);
    call.masks = inputs_.masks.span();
    return call;
  }

  void add_bias() {
    const Tensor query = rounded(result_.query, sizes_.dtype);
    const AttentionCall as_module = call(query, result_.key, result_.value);
    result_.bias = matrix();
    auto* to = result_.bias.data_as<double>();
    for (int64_t n = 0; n < result_.bias.numel(); ++n) {
      const int64_t j = n % inputs_.columns, row = n / inputs_.columns;
      const int64_t i = row % q_len(), head = row / q_len();
      if (j >= kv_len()) continue;  // appended columns are never masked
      to[n] = attention_bias_reference(as_module, head / sizes_.num_heads, head % sizes_.num_heads,
                                       i, j);
    }
  }

  // Element d of key or value j of a head, the appended ones after the others.
  double at(const Tensor& rows, const Tensor& extra, int64_t b, int64_t h, int64_t j,
            int64_t d) const {
    const int64_t dim = sizes_.head_dim, column = h * dim + d;
    if (j < kv_len()) {
      return rows.data_as<double>()[(b * kv_len() + j) * sizes_.width() + column];
    }
    if (!extra.defined()) return 0;  // the budget of an appended column: it is exact
    return extra.data_as<double>()[(h * sizes_.num_extra() + j - kv_len()) * dim + d];
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

  void attend(EmptyRow empty_rows) {
    AttentionCall exact = call(result_.query, result_.key, result_.value);
    exact.extra_key = result_.extra_key;
    exact.extra_value = result_.extra_value;
    exact.empty_rows = empty_rows;
    const Mask bias = Mask::additive(result_.bias.view().narrow(3, 0, kv_len()));
    exact.masks = {&bias, 1};
    AttentionReference truth = attention_forward_reference(exact, {.probs = true});
    result_.probs = std::move(truth.probs);
    result_.heads = Tensor(truth.out.view().transposed(1, 2));
    join_heads(result_.heads);

    // The op's own budget, for operands in the module's dtype.
    const DType dtype = sizes_.dtype;
    const Tensor query = rounded(result_.query, dtype), key = rounded(result_.key, dtype),
                 value = rounded(result_.value, dtype);
    const Tensor extra_key = rounded(result_.extra_key, dtype),
                 extra_value = rounded(result_.extra_value, dtype);
    AttentionCall as_module = call(query, key, value);
    as_module.extra_key = extra_key.view();
    as_module.extra_value = extra_value.view();
    AttentionReference own =
        attention_forward_reference(as_module, {.probs = true, .budget = true});
    probs_budget_ = std::move(own.probs_budget);
    heads_budget_ = Tensor(own.out_budget.view().transposed(1, 2));
    join_heads(heads_budget_);
  }

  // [batch, q_len, num_heads, head_dim] -> [batch, q_len, width]
  void join_heads(Tensor& tensor) const {
    Tensor joined(DType::kFloat64, {batch(), q_len(), sizes_.width()});
    std::copy_n(tensor.data_as<double>(), tensor.numel(), joined.data_as<double>());
    tensor = std::move(joined);
  }

  struct Pair {
    int64_t b, h, i, j;
    int64_t query;  // offset of the head's first element in the projected queries
  };
  Pair pair_of(int64_t n) const {
    Pair pair{};
    pair.j = n % inputs_.columns;
    pair.i = n / inputs_.columns % q_len();
    pair.h = n / inputs_.columns / q_len() % sizes_.num_heads;
    pair.b = n / inputs_.columns / q_len() / sizes_.num_heads;
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

  Tensor weights(const Tensor& per_head, WeightsMode mode) const {
    Tensor result(DType::kFloat64, weights_shape(inputs_, sizes_, mode));
    const int64_t pairs = q_len() * inputs_.columns, heads = sizes_.num_heads;
    const auto* from = per_head.data_as<double>();
    for (int64_t n = 0; n < per_head.numel(); ++n) {
      const bool average = mode == WeightsMode::kAverage;
      const int64_t to = average ? n / (heads * pairs) * pairs + n % pairs : n;
      result.data_as<double>()[to] += average ? from[n] / static_cast<double>(heads) : from[n];
    }
    return result;
  }

  const AttentionSizes& sizes_;
  const DoubleParameters& parameters_;
  const ForwardInputs& inputs_;
  double u_;
  WithBudget q_, k_, v_;                // [batch, len, width]
  Tensor heads_budget_, probs_budget_;  // as heads and probs
  ModuleReference result_;
};

}  // namespace

ModuleReference module_forward_reference(const MultiheadAttention& module,
                                         const ConstTensorView& query, const ConstTensorView& key,
                                         const ConstTensorView& value,
                                         const ForwardOptions& options) {
  const AttentionSizes sizes = sizes_of(module.config());
  const ForwardInputs inputs =
      check_mha_inputs(sizes, module.config().layout, query, key, value, options);
  const DoubleParameters parameters = double_parameters(module);
  return Steps(sizes, parameters, inputs).run(options.empty_rows, options.need_weights);
}

ModuleReference module_forward_reference(const FromScratchMultiHeadAttention& module,
                                         const ConstTensorView& q, const ConstTensorView& k,
                                         const ConstTensorView& v, const ConstTensorView& mask,
                                         WeightsMode need_weights) {
  const AttentionSizes sizes = sizes_of(module);
  const ForwardInputs inputs = check_scratch_inputs(sizes, q, k, v, mask);
  const DoubleParameters parameters = double_parameters(module);
  return Steps(sizes, parameters, inputs).run(EmptyRow::kZero, need_weights);
}

}  // namespace polyhead
