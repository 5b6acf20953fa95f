#include "module/training/module_backward_reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "attention/attention_call.h"
#include "attention/dropout.h"
#include "module/double_parameters.h"
#include "module/forward_inputs.h"
#include "module/heads/head_rows_reference.h"
#include "module/module_reference.h"

namespace polyhead {
namespace {

using StateDict = std::vector<std::pair<std::string, ConstTensorView>>;

using Number = RowNumber;

// Numbers in rows, [rows, columns].
struct Matrix {
  int64_t rows = 0, columns = 0;
  std::vector<Number> numbers = {};

  Matrix(int64_t r, int64_t c) : rows(r), columns(c), numbers(static_cast<size_t>(r * c)) {}
  explicit Matrix(const Tensor& exact)  // the last dimension is that of the columns
      : Matrix(exact.numel() / std::max<int64_t>(last_of(exact), 1), last_of(exact)) {
    for (size_t n = 0; n < numbers.size(); ++n) numbers[n].value = exact.data_as<double>()[n];
  }
  Number& at(int64_t r, int64_t c) { return numbers[static_cast<size_t>(r * columns + c)]; }
  const Number& at(int64_t r, int64_t c) const {
    return numbers[static_cast<size_t>(r * columns + c)];
  }
  static int64_t last_of(const Tensor& tensor) { return tensor.size(tensor.rank() - 1); }
};

// How the errors of a sum's terms add up: along one row of scores, or of features, they have causes
// in common; from query to query, and from token to token, they have not.
enum class Errors { kInCommon, kIndependent };

// A sum of products in the module's dtype.
class Sum {
 public:
  explicit Sum(double unit, Errors errors = Errors::kInCommon) : unit_(unit), errors_(errors) {}

  void add(const Number& a, const Number& b) {
    if (a.value == 0 && a.error == 0) return;  // nothing of b, be it NaN
    const double error = a.error * std::abs(b.value) + std::abs(a.value) * b.error;
    value_ += a.value * b.value;
    magnitude_ += std::abs(a.value * b.value);
    carried_ += errors_ == Errors::kInCommon ? error : error * error;
    ++count_;
  }
  double magnitude() const { return magnitude_; }
  Number result() const {
    const double roundings = unit_ * (std::sqrt(static_cast<double>(count_)) + 2);
    const double carried = errors_ == Errors::kInCommon ? carried_ : std::sqrt(carried_);
    return {value_, carried + roundings * magnitude_};
  }

 private:
  double unit_;
  Errors errors_;
  double value_ = 0, magnitude_ = 0, carried_ = 0;
  int64_t count_ = 0;
};

// y = x . w^T + b
Matrix linear(const Matrix& x, const Matrix& w, const Tensor& bias, double unit) {
  Matrix y(x.rows, w.rows);
  for (int64_t r = 0; r < y.rows; ++r) {
    for (int64_t n = 0; n < y.columns; ++n) {
      Sum sum(unit);
      for (int64_t k = 0; k < w.columns; ++k) sum.add(x.at(r, k), w.at(n, k));
      if (bias.defined()) sum.add({1, 0}, {bias.data_as<double>()[n], 0});
      y.at(r, n) = sum.result();
    }
  }
  return y;
}

// d_x = d_y . w
Matrix input_gradient(const Matrix& d_y, const Matrix& w, double unit) {
  Matrix d_x(d_y.rows, w.columns);
  for (int64_t r = 0; r < d_x.rows; ++r) {
    for (int64_t k = 0; k < d_x.columns; ++k) {
      Sum sum(unit);
      for (int64_t n = 0; n < w.rows; ++n) sum.add(d_y.at(r, n), w.at(n, k));
      d_x.at(r, k) = sum.result();
    }
  }
  return d_x;
}

// d_w = d_y^T . x; with x a column of ones, the gradient of a bias.
Matrix weight_gradient(const Matrix& d_y, const Matrix& x, double unit) {
  Matrix d_w(d_y.columns, x.columns);
  for (int64_t n = 0; n < d_w.rows; ++n) {
    for (int64_t k = 0; k < d_w.columns; ++k) {
      Sum sum(unit, Errors::kIndependent);
      for (int64_t r = 0; r < d_y.rows; ++r) sum.add(d_y.at(r, n), x.at(r, k));
      d_w.at(n, k) = sum.result();
    }
  }
  return d_w;
}

Matrix ones(int64_t rows) {
  Matrix column(rows, 1);
  for (Number& number : column.numbers) number.value = 1;
  return column;
}

class Backward {
 public:
  Backward(const AttentionSizes& sizes, const ForwardInputs& inputs, const DoubleParameters& p,
           const ReferenceStep& step)
      : sizes_(sizes),
        inputs_(inputs),
        step_(step),
        unit_(sizes.dtype == DType::kFloat32 ? 0x1p-24 : 0x1p-53),
        scale_(attention_scale(sizes)),
        x_{Matrix(as_double(inputs.query)), Matrix(as_double(inputs.key)),
           Matrix(as_double(inputs.value))},
        w_{Matrix(p.q_weight), Matrix(p.k_weight), Matrix(p.v_weight), Matrix(p.out_weight)},
        y_{linear(x_[0], w_[0], p.q_bias, unit_), linear(x_[1], w_[1], p.k_bias, unit_),
           linear(x_[2], w_[2], p.v_bias, unit_)},
        norm_{p.q_norm, p.k_norm},
        d_y_{Matrix(x_[0].rows, width()), Matrix(x_[1].rows, kv_width()),
             Matrix(x_[2].rows, kv_width())},
        d_out_(as_double(batch_first(step.outputs.d_out, inputs))),
        d_heads_(input_gradient(d_out_, w_[3], unit_)),
        heads_(x_[0].rows, width()),
        d_weights_(as_double(step.outputs.d_weights)) {}

  // `forward`: its steps, with the weights of each head.
  ModuleBackwardReference run(const ModuleReference& forward, const Dropout& dropout,
                              const StateDict& state_dict) {
    forward_ = &forward;
    dropout_ = dropout;
    for (const int i : {0, 1}) transform(i);
    probs_ = scores_ = Matrix(batch() * heads() * q_len(), columns());
    for (int64_t row = 0; row < scores_.rows; ++row) score_gradients(row);
    for (int64_t row = 0; row < scores_.rows; ++row) query_gradients(row);
    for (int64_t n = 0; n < batch() * sizes_.num_kv_heads; ++n) key_gradients(n);
    for (const int i : {0, 1}) pull_back(i);
    ModuleBackwardReference result;
    result.d_query = d_rows(0);
    result.d_key = d_rows(1);
    result.d_value = d_rows(2);
    const size_t attn = inputs_.key_padding_mask.defined() ? 1 : 0;  // in the list of masks
    if (inputs_.key_padding_mask.defined()) {
      result.d_key_padding_mask = d_mask(0, inputs_.key_padding_mask);
    }
    if (inputs_.attn_mask.defined()) result.d_attn_mask = d_mask(attn, inputs_.attn_mask);
    parameters(state_dict, &result);
    return result;
  }

 private:
  int64_t batch() const { return inputs_.batch(); }
  int64_t q_len() const { return inputs_.q_len(); }
  int64_t kv_len() const { return inputs_.kv_len(); }
  int64_t heads() const { return sizes_.num_heads; }
  int64_t width() const { return sizes_.width(); }
  int64_t kv_width() const { return sizes_.kv_width(); }
  int64_t columns() const { return inputs_.columns; }

  // use(n, position) for each head of each token of query (0) or key (1), from number n on.
  template <class Use>
  void for_each_head(int i, const Matrix& of, const Use& use) const {
    const int64_t len = i == 0 ? q_len() : kv_len();
    for (int64_t n = 0; n < of.rows * of.columns; n += sizes_.head_dim) {
      use(static_cast<size_t>(n), inputs_.positions[static_cast<size_t>(i)] + n / of.columns % len);
    }
  }
  RowNumbers head_at(const Matrix& of, size_t n) const {
    const auto first = of.numbers.begin() + static_cast<ptrdiff_t>(n);
    return {first, first + sizes_.head_dim};
  }
  static void put(const RowNumbers& row, Matrix* to, size_t n) {
    std::ranges::copy(row, to->numbers.begin() + static_cast<ptrdiff_t>(n));
  }
  const double* norm(int i) const {
    return sizes_.qk_norm ? norm_[static_cast<size_t>(i)].data_as<double>() : nullptr;
  }

  // From what was projected to what the scores are made of, of query (0) or key (1).
  void transform(int i) {
    if (!sizes_.transforms()) return;
    Matrix& y = y_[static_cast<size_t>(i)];
    projected_.push_back(y);
    for_each_head(i, y, [&](size_t n, int64_t position) {
      RowNumbers row = head_at(y, n);
      transform_reference(row, sizes_, norm(i), position, unit_);
      put(row, &y, n);
    });
  }
  // Back again with the gradient, and the norm's own. A row without a gradient was not seen.
  void pull_back(int i) {
    if (!sizes_.transforms()) return;
    Matrix& d_y = d_y_[static_cast<size_t>(i)];
    const Matrix& x = projected_[static_cast<size_t>(i)];
    std::vector<Sum> sums(static_cast<size_t>(sizes_.head_dim), Sum(unit_, Errors::kIndependent));
    for_each_head(i, d_y, [&](size_t n, int64_t position) {
      RowNumbers row = head_at(d_y, n), share = row;
      const auto seen = [](const RowNumber& d) { return d.value != 0 || d.error != 0; };
      if (std::ranges::none_of(row, seen)) return;
      if (sizes_.rotates()) rotate_backward_reference(row, sizes_.rope, position, unit_);
      if (sizes_.qk_norm) {
        norm_backward_reference(row, head_at(x, n), norm(i), sizes_.qk_norm_eps, unit_, &share);
        for (size_t d = 0; d < share.size(); ++d) sums[d].add(share[d], {1, 0});
      }
      put(row, &d_y, n);
    });
    d_norm_.emplace_back(1, sizes_.head_dim);
    for (size_t d = 0; d < sums.size(); ++d) d_norm_.back().numbers[d] = sums[d].result();
  }

  // Row (b, h, i) of the score matrix.
  struct Place {
    int64_t b, h, i;
  };
  Place place(int64_t row) const {
    return {row / q_len() / heads(), row / q_len() % heads(), row % q_len()};
  }
  bool masked(int64_t row, int64_t j) const {
    const double bias = forward_->bias.data_as<double>()[row * columns() + j];
    return bias == -std::numeric_limits<double>::infinity();
  }
  double kept(const Place& at, int64_t j) const {
    const int64_t key = j < kv_len() ? j : kFirstAppendedKey + j - kv_len();
    return dropout_.keeps(at.b * heads() + at.h, at.i, key) ? dropout_.scale() : 0;
  }
  Number prob(int64_t row, int64_t j) const {
    const auto n = row * columns() + j;
    return {forward_->probs.data_as<double>()[n], forward_->weights_budget.data_as<double>()[n]};
  }
  // Element d of key (part 1) or value (2) j, the appended ones after the others.
  Number key_or_value(int part, const Place& at, int64_t j, int64_t d) const {
    const int64_t dim = sizes_.head_dim, h = sizes_.kv_head(at.h);
    if (j < kv_len()) return y_[static_cast<size_t>(part)].at(at.b * kv_len() + j, h * dim + d);
    const Tensor& extra = part == 1 ? forward_->extra_key : forward_->extra_value;
    return {extra.data_as<double>()[(h * extra.size(1) + j - kv_len()) * dim + d], 0};
  }
  double d_weight(const Place& at, int64_t j) const {
    if (!d_weights_.defined()) return 0;
    const bool average = step_.options.need_weights == WeightsMode::kAverage;
    const int64_t of = average ? at.b : at.b * heads() + at.h;
    const double d = d_weights_.data_as<double>()[(of * q_len() + at.i) * columns() + j];
    return average ? d / static_cast<double>(heads()) : d;
  }

  // d_p_ij, and the sum of its terms' magnitudes.
  Number d_prob(const Place& at, int64_t j, double* magnitude) const {
    const double c = kept(at, j);
    if (c == 0) return {};
    Sum sum(unit_);
    for (int64_t d = 0; d < sizes_.head_dim; ++d) {
      const Number& d_head = d_heads_.at(at.b * q_len() + at.i, at.h * sizes_.head_dim + d);
      sum.add(d_head, key_or_value(2, at, j, d));
    }
    sum.add({1, 0}, {d_weight(at, j), 0});
    *magnitude = c * sum.magnitude();
    return {c * sum.result().value, c * sum.result().error};
  }

  // forward: p = softmax(s), of which dropout keeps c p
  void score_gradients(int64_t row) {
    const Place at = place(row);
    std::vector<Number> d_probs(static_cast<size_t>(columns()));
    Number delta;
    double all = 0;
    for (int64_t j = 0; j < columns(); ++j) {
      if (masked(row, j)) continue;
      const Number p = prob(row, j);
      double magnitude = 0;
      const Number d_p = d_probs[static_cast<size_t>(j)] = d_prob(at, j, &magnitude);
      delta.value += p.value * d_p.value;
      delta.error += p.error * magnitude + p.value * d_p.error;
      all += p.value * magnitude;
      probs_.at(row, j) = {p.value * kept(at, j), p.error * kept(at, j)};
    }
    delta.error += unit_ * (std::sqrt(static_cast<double>(sizes_.head_dim)) + 2) * all;
    for (int64_t j = 0; j < columns(); ++j) {
      if (masked(row, j)) continue;
      const Number p = prob(row, j), d_p = d_probs[static_cast<size_t>(j)];
      const double difference = d_p.value - delta.value;
      const double rounding = 2 * unit_ * (std::abs(d_p.value) + std::abs(delta.value));
      scores_.at(row, j) = {
          p.value * difference,
          p.error * std::abs(difference) + p.value * (d_p.error + delta.error + rounding)};
    }
  }

  Number scaled(const Number& number) const {
    return {scale_ * number.value, scale_ * number.error};
  }

  // d_q_i = scale * sum_j d_s_ij k_j; and heads_i = sum_j c p_ij v_j once more, with its error
  void query_gradients(int64_t row) {
    const Place at = place(row);
    bool empty = columns() > 0;
    for (int64_t j = 0; j < columns(); ++j) empty = empty && masked(row, j);
    for (int64_t d = 0; d < sizes_.head_dim; ++d) {
      Sum d_query(unit_), head(unit_);
      for (int64_t j = 0; j < columns(); ++j) {
        d_query.add(scores_.at(row, j), key_or_value(1, at, j, d));
        head.add(probs_.at(row, j), key_or_value(2, at, j, d));
      }
      const int64_t n = at.b * q_len() + at.i, column = at.h * sizes_.head_dim + d;
      d_y_[0].at(n, column) = scaled(d_query.result());
      heads_.at(n, column) = head.result();
      if (empty && step_.options.empty_rows == EmptyRow::kNan) {
        heads_.at(n, column).value = std::numeric_limits<double>::quiet_NaN();
      }
    }
  }

  // d_k_j = scale * sum_i d_s_ij q_i, d_v_j = sum_i c p_ij d_heads_i, over the heads that read
  // them, of batch item and head of the keys n
  void key_gradients(int64_t n) {
    const int64_t dim = sizes_.head_dim, b = n / sizes_.num_kv_heads, h = n % sizes_.num_kv_heads;
    for (int64_t m = 0; m < kv_len() * dim; ++m) {
      const int64_t j = m / dim, column = h * dim + m % dim;
      Sum d_key(unit_, Errors::kIndependent), d_value(unit_, Errors::kIndependent);
      add_columns(b, h, j, m % dim, &d_key, &d_value);
      d_y_[1].at(b * kv_len() + j, column) = scaled(d_key.result());
      d_y_[2].at(b * kv_len() + j, column) = d_value.result();
    }
  }
  void add_columns(int64_t b, int64_t kv_head, int64_t j, int64_t d, Sum* d_key,
                   Sum* d_value) const {
    const int64_t group = heads() / sizes_.num_kv_heads;
    for (int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
      add_column({b, h, 0}, j, d, d_key, d_value);
    }
  }
  void add_column(const Place& head, int64_t j, int64_t d, Sum* d_key, Sum* d_value) const {
    for (int64_t i = 0; i < q_len(); ++i) {
      const int64_t row = (head.b * heads() + head.h) * q_len() + i;
      const int64_t n = head.b * q_len() + i, column = head.h * sizes_.head_dim + d;
      d_key->add(scores_.at(row, j), y_[0].at(n, column));
      d_value->add(probs_.at(row, j), d_heads_.at(n, column));
    }
  }

  // The first appended column, of key or of value, [1, kv_width].
  Matrix bias_column(bool of_key) const {
    Matrix result(1, kv_width());
    for (int64_t n = 0; n < kv_width(); ++n) {
      Sum d_key(unit_, Errors::kIndependent), d_value(unit_, Errors::kIndependent);
      for (int64_t b = 0; b < batch(); ++b) {
        add_columns(b, n / sizes_.head_dim, kv_len(), n % sizes_.head_dim, &d_key, &d_value);
      }
      result.at(0, n) = of_key ? scaled(d_key.result()) : d_value.result();
    }
    return result;
  }

  GradientReference d_rows(int part) const {
    const Matrix d_x =
        input_gradient(d_y_[static_cast<size_t>(part)], w_[static_cast<size_t>(part)], unit_);
    const int64_t shape[] = {batch(), part == 0 ? q_len() : kv_len(), d_x.columns};
    const GradientReference result = as_tensors({&d_x}, shape);
    const auto in_layout = [&](const Tensor& rows) {
      if (!inputs_.batched) return Tensor(rows.view().select(0, 0));
      return inputs_.layout == Layout::kSequenceFirst ? Tensor(rows.view().transposed(0, 1)) : rows;
    };
    return {in_layout(result.value), in_layout(result.budget)};
  }

  // forward: s_ij += factor * mask, wherever the mask broadcasts
  GradientReference d_mask(size_t index, const ConstTensorView& given) const {
    const Mask& mask = inputs_.masks.span()[index];
    if (mask.kind() != Mask::Kind::kAdditive) return {};
    const Tensor rows(DType::kFloat64, mask.tensor().shape());  // row-major, as the result
    const MaskStrides strides = mask_strides(rows);
    std::vector<Sum> sums(static_cast<size_t>(rows.numel()), Sum(unit_, Errors::kIndependent));
    for (int64_t row = 0; row < scores_.rows; ++row) {
      const Place at = place(row);
      const int64_t n = at.b * strides.batch + at.h * strides.head + at.i * strides.query;
      for (int64_t j = 0; j < kv_len(); ++j) {
        sums[static_cast<size_t>(n + j * strides.key)].add(scores_.at(row, j), {mask.factor(), 0});
      }
    }
    Matrix result(rows.numel(), 1);
    for (size_t n = 0; n < sums.size(); ++n) result.numbers[n] = sums[n].result();
    return as_tensors({&result}, given.shape());
  }

  // The numbers of the matrices one after another.
  static GradientReference as_tensors(const std::vector<const Matrix*>& parts, Shape shape) {
    GradientReference result{Tensor(DType::kFloat64, shape), Tensor(DType::kFloat64, shape)};
    int64_t n = 0;
    for (const Matrix* part : parts) {
      for (const Number& number : part->numbers) {
        result.value.data_as<double>()[n] = number.value;
        result.budget.data_as<double>()[n++] = number.error;
      }
    }
    return result;
  }

  void parameters(const StateDict& state_dict, ModuleBackwardReference* result) const {
    std::vector<Matrix> weights, biases;
    for (size_t i = 0; i < 3; ++i) {
      weights.push_back(weight_gradient(d_y_[i], x_[i], unit_));
      biases.push_back(weight_gradient(d_y_[i], ones(x_[i].rows), unit_));
    }
    const Matrix out_weight = weight_gradient(d_out_, heads_, unit_);
    const Matrix out_bias = weight_gradient(d_out_, ones(d_out_.rows), unit_);
    const Matrix bias_k = sizes_.add_bias_kv ? bias_column(true) : Matrix(0, 0);
    const Matrix bias_v = sizes_.add_bias_kv ? bias_column(false) : Matrix(0, 0);
    const Matrix *wq = &weights[0], *wk = &weights[1], *wv = &weights[2];
    const Matrix *bq = &biases[0], *bk = &biases[1], *bv = &biases[2];
    const bool norms = sizes_.qk_norm;
    const Matrix *q_norm = norms ? &d_norm_[0] : nullptr, *k_norm = norms ? &d_norm_[1] : nullptr;
    const std::map<std::string, std::vector<const Matrix*>> parts = {
        {"q_norm.weight", {q_norm}},
        {"k_norm.weight", {k_norm}},
        {"in_proj_weight", {wq, wk, wv}},
        {"in_proj_bias", {bq, bk, bv}},
        {"q_proj_weight", {wq}},
        {"k_proj_weight", {wk}},
        {"v_proj_weight", {wv}},
        {"q_linear.weight", {wq}},
        {"k_linear.weight", {wk}},
        {"v_linear.weight", {wv}},
        {"q_linear.bias", {bq}},
        {"k_linear.bias", {bk}},
        {"v_linear.bias", {bv}},
        {"bias_k", {&bias_k}},
        {"bias_v", {&bias_v}},
        {"out_proj.weight", {&out_weight}},
        {"out_proj.bias", {&out_bias}},
        {"fc_out.weight", {&out_weight}},
        {"fc_out.bias", {&out_bias}}};
    for (const auto& [name, view] : state_dict) {
      result->parameters.emplace_back(name, as_tensors(parts.at(name), view.shape()));
    }
  }

  const AttentionSizes& sizes_;
  const ForwardInputs& inputs_;
  const ReferenceStep& step_;
  double unit_, scale_;
  std::vector<Matrix> x_;          // of query, key, value: [batch * len, features]
  std::vector<Matrix> w_;          // theirs and the out-projection's
  std::vector<Matrix> y_;          // q, k, v: [batch * len, width | kv_width]
  std::vector<Tensor> norm_;       // weights of the norms of query and key
  std::vector<Matrix> projected_;  // q and k before norm and rotation, if there is either
  std::vector<Matrix> d_norm_;     // [1, head_dim], as projected_
  std::vector<Matrix> d_y_;        // gradients of q, k and v
  Matrix d_out_;                   // [batch * q_len, embed_dim]
  Matrix d_heads_, heads_;         // [batch * q_len, width]
  Tensor d_weights_;               // [batch, q_len, columns] or [batch, num_heads, q_len, columns]
  Matrix probs_{0, 0};             // c p: [batch * num_heads * q_len, columns], 0 where masked
  Matrix scores_{0, 0};            // d_s: the same
  const ModuleReference* forward_ = nullptr;
  Dropout dropout_;
};

}  // namespace

ModuleBackwardReference module_backward_reference(const MultiheadAttention& module,
                                                  const ReferenceStep& step) {
  const MultiheadAttention::Config& config = module.config();
  const AttentionSizes sizes = sizes_of(config);
  const ForwardInputs inputs =
      check_mha_inputs(sizes, config.layout, step.query, step.key, step.value, step.options);
  ForwardOptions options = step.options;
  options.need_weights = WeightsMode::kPerHead;
  const ModuleReference forward =
      module_forward_reference(module, step.query, step.key, step.value, options);
  const Dropout dropout{config.dropout, step.dropout.seed, step.dropout.call};
  return Backward(sizes, inputs, double_parameters(module), step)
      .run(forward, dropout, module.state_dict());
}

ModuleBackwardReference module_backward_reference(const FromScratchMultiHeadAttention& module,
                                                  const ReferenceStep& step) {
  const AttentionSizes sizes = sizes_of(module);
  const ForwardInputs inputs =
      check_scratch_inputs(sizes, step.query, step.key, step.value, step.options.attn_mask);
  const ModuleReference forward =
      module_forward_reference(module, step.query, step.key, step.value, step.options.attn_mask,
                               {.need_weights = WeightsMode::kPerHead});
  return Backward(sizes, inputs, double_parameters(module), step)
      .run(forward, {}, module.state_dict());
}

}  // namespace polyhead
