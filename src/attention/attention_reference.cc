#include "attention/attention_reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "attention/score_mod.h"

namespace polyhead {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

double number_at(const ConstTensorView& view, int64_t offset) {
  const auto* data = static_cast<const std::byte*>(view.data());
  const auto* at = data + offset * static_cast<int64_t>(dtype_bytes(view.dtype()));
  switch (view.dtype()) {
    case DType::kFloat32:
      return *reinterpret_cast<const float*>(at);
    case DType::kFloat64:
      return *reinterpret_cast<const double*>(at);
    case DType::kBool:
      return *reinterpret_cast<const unsigned char*>(at) != 0;
    case DType::kInt32:
      return *reinterpret_cast<const int32_t*>(at);
    default:
      return static_cast<double>(*reinterpret_cast<const int64_t*>(at));
  }
}

double at(const ConstTensorView& view, int64_t a, int64_t b, int64_t c, int64_t d) {
  return number_at(
      view, a * view.stride(0) + b * view.stride(1) + c * view.stride(2) + d * view.stride(3));
}

// The masks are summed in the query's dtype, as torch does: two finfo.min make -inf.
double rounded(DType dtype, double x) {
  return dtype == DType::kFloat32 ? static_cast<double>(static_cast<float>(x)) : x;
}

// One row of the score matrix and what follows from it.
class Row {
 public:
  Row(const AttentionCall& call, int64_t b, int64_t h, int64_t i)
      : call_(call),
        b_(b),
        h_(h),
        i_(i),
        position_(call.first_position(b)),
        columns_(call.kv_len() + call.num_extra()),
        scores_(static_cast<size_t>(columns_)),
        probs_(scores_),
        kept_(scores_),
        error_(scores_),
        hidden_(scores_.size()) {}

  double key(int64_t j, int64_t d) const {
    return number(call_.key, call_.extra_key, call_.head_dim(), j, d);
  }
  double value(int64_t j, int64_t d) const {
    return number(call_.value, call_.extra_value, call_.v_head_dim(), j, d);
  }

  // scores = scale * q . k + bias; probs = exp(scores - lse); masked pairs have score -inf. Dropout
  // leaves all of these alone.
  void softmax() {
    // 1 for query * scale, the rest for the chain over d.
    const double roundings = 1 + std::sqrt(static_cast<double>(call_.head_dim()));
    for (int64_t j = 0; j < columns_; ++j) {
      const auto n = static_cast<size_t>(j);
      const double bias = j < call_.kv_len() ? attention_bias_reference(call_, b_, h_, i_, j) : 0;
      if (bias == -kInf) {
        scores_[n] = -kInf;
        hidden_[n] = true;
        continue;
      }
      double dot = 0, magnitude = 0;
      for (int64_t d = 0; d < call_.head_dim(); ++d) {
        const double product = at(call_.query, b_, h_, i_, d) * key(j, d);
        dot += product;
        magnitude += std::abs(product);
      }
      const double capped = softcapped(call_.scale * dot);
      const double modified = own(j) && call_.score_mod.forward != nullptr
                                  ? modified_score(call_, {b_, h_, position_ + i_, j}, capped)
                                  : capped;
      if (call_.score_mod.forward != nullptr && modified == -kInf) {
        scores_[n] = -kInf;
        hidden_[n] = true;
        continue;
      }
      scores_[n] = modified + bias;
      error_[n] = roundings * std::abs(call_.scale) * magnitude + std::abs(bias) + 2;
      if (call_.softcap > 0) error_[n] += 4 * std::abs(capped);  // tanh, and * before and after
      if (modified != capped) error_[n] += 2 * (std::abs(capped) + std::abs(modified));
      if (std::isnan(scores_[n])) has_nan_ = true;
      max_ = std::max(max_, scores_[n]);
    }
    if (call_.sinks.defined()) take_sink(number_at(call_.sinks, h_ * call_.sinks.stride(0)));
    if (has_nan_) max_ = std::numeric_limits<double>::quiet_NaN();
    for (double score : scores_) {
      if (score != -kInf) sum_ += std::exp(score - max_);
    }
    if (sink_ != -kInf) sum_ += std::exp(sink_ - max_);
    for (size_t n = 0; n < scores_.size(); ++n) {
      const bool masked = scores_[n] == -kInf && !std::isnan(sum_);  // a NaN row is NaN throughout
      probs_[n] = masked ? empty_value() : std::exp(scores_[n] - max_) / sum_;
      if (probs_[n] >= smallest_normal())
        worst_ = std::max(worst_, error_[n] + (max_ - scores_[n]));
      kept_[n] = call_.kept(b_, h_, i_, static_cast<int64_t>(n));
    }
  }

  bool empty() const { return !has_nan_ && max_ == -kInf; }
  double empty_value() const {
    const bool nan = empty() && columns_ > 0 && call_.empty_rows == EmptyRow::kNan;
    return nan ? std::numeric_limits<double>::quiet_NaN() : 0;
  }
  double lse() const { return empty() ? -kInf : max_ + std::log(sum_); }
  // What the weights hold: dropout's factor included.
  double prob(int64_t j) const { return probs_[static_cast<size_t>(j)] * kept(j); }

  // sum_j p_ij v_jd, masked and dropped pairs skipped; and the same with |v|.
  // *budget = C * (r_i * sum_j p_ij |v_jd| + underflow), C = 1.
  void output(int64_t d, double* out, double* budget) const {
    *out = empty_value();
    double magnitude = 0, lost = 0;
    for (int64_t j = 0; j < columns_; ++j) {
      if (hidden_[static_cast<size_t>(j)]) continue;  // a visible -inf has p = 0, times its value
      if (kept(j) == 0) {
        *out += prob(j);  // 0, or the NaN of a row that is NaN throughout
        continue;
      }
      *out += prob(j) * value(j, d);
      magnitude += prob(j) * std::abs(value(j, d));
      lost += kept(j) * (flushed(j) * std::abs(value(j, d)) + 4 * smallest_subnormal());
    }
    *budget = relative_budget() * magnitude + lost + 16 * smallest_subnormal();
  }
  double prob_budget(int64_t j) const {
    const double lost = std::max(kept(j), 1.0) * 4 * smallest_subnormal();
    return relative_budget() * prob(j) + kept(j) * flushed(j) + lost;
  }
  double lse_budget() const { return empty() ? 0 : relative_budget() + unit() * std::abs(lse()); }

 private:
  bool own(int64_t j) const { return j < call_.kv_len(); }
  // Column d of row j: of the call's own, or in a page of a cache, or of those that are appended.
  double number(const ConstTensorView& of, const ConstTensorView& extra, int64_t columns, int64_t j,
                int64_t d) const {
    const int64_t kv_head = call_.kv_head(h_), s = call_.kv_len();
    if (j >= s) return at(extra.unsqueezed(0), 0, kv_head, j - s, d);
    if (call_.cached.empty()) return at(of, b_, kv_head, j, d);
    const CachedSequence& from = call_.cached[static_cast<size_t>(b_)];
    const int64_t page = from.pages[j / call_.page_len() - from.first_page];
    const int64_t in_page = j % call_.page_len(), of_block = of.size(2);
    return at(of, page, kv_head, in_page % of_block, in_page / of_block * columns + d);
  }
  double softcapped(double score) const {
    return call_.softcap > 0 ? call_.softcap * std::tanh(score / call_.softcap) : score;
  }
  // A score without a value.
  void take_sink(double sink) {
    sink_ = sink;
    has_nan_ |= std::isnan(sink);
    max_ = std::max(max_, sink);
    if (max_ - sink < 80) worst_ = 2 + max_ - sink;  // beyond, exp(-80) of it is below rounding
  }
  bool single() const { return call_.query.dtype() == DType::kFloat32; }
  double unit() const { return single() ? 0x1p-24 : 0x1p-53; }
  double smallest_normal() const { return single() ? 0x1p-126 : 0x1p-1022; }
  double smallest_subnormal() const { return single() ? 0x1p-149 : 0x1p-1074; }
  // A streaming kernel may flush what is this small: its running maximum lags by up to 16, and the
  // factor that brings a probability to the final one is flushed too. 4: to survive C = 1/4. The p
  // here has lost a subnormal number itself, which is seen once dropout has taken all larger ones.
  double flushed(int64_t j) const {
    const double p = probs_[static_cast<size_t>(j)] + std::numeric_limits<double>::denorm_min();
    return 4 * std::min(p, 0x1p24 * 2 * smallest_normal());
  }
  double kept(int64_t j) const { return kept_[static_cast<size_t>(j)]; }
  // r_i: the budget's factor before sum_j p_ij |v_jd|. Dropout's 1 / (1 - p) is rounded, too.
  double relative_budget() const {
    const double roundings = call_.dropout.p > 0 ? 5 : 4;
    return unit() * (2 * worst_ + std::sqrt(static_cast<double>(columns_)) + roundings);
  }

  const AttentionCall& call_;
  int64_t b_, h_, i_, position_, columns_;
  std::vector<double> scores_, probs_, kept_, error_;
  std::vector<bool> hidden_;
  double max_ = -kInf, sum_ = 0, worst_ = 0, sink_ = -kInf;
  bool has_nan_ = false;
};

// The keys of batch item b that count.
int64_t num_valid_keys(const AttentionCall& call, int64_t b) {
  int64_t keys = call.kv_len();
  for (const Mask& mask : call.masks) {
    if (mask.kind() == Mask::Kind::kKeyLengths) keys = std::min(keys, integer_at(mask.tensor(), b));
  }
  return keys;
}

// Whether query i sees key j through a causal mask, a window, key lengths or segments.
bool is_in_reach(const AttentionCall& call, const Mask& mask, int64_t b, int64_t i, int64_t j) {
  if (mask.kind() == Mask::Kind::kSegments) {
    return integer_at(ids_of(mask.tensor(), b), i) == integer_at(ids_of(mask.key_ids(), b), j);
  }
  const int64_t keys = num_valid_keys(call, b);
  if (mask.kind() == Mask::Kind::kKeyLengths) return j < keys;
  const int64_t stands_at = i + mask.offset().of(call.q_len(), keys);
  const bool too_far_left = mask.left() >= 0 && j < stands_at - mask.left();
  const bool too_far_right = mask.right() >= 0 && j > stands_at + mask.right();
  return !too_far_left && !too_far_right;
}

// How far query i stands from key j, in the query's dtype.
double distance(const AttentionCall& call, const Mask& mask, int64_t b, int64_t i, int64_t j) {
  const int64_t stands_at = i + mask.offset().of(call.q_len(), num_valid_keys(call, b));
  return rounded(call.query.dtype(), std::abs(static_cast<double>(stands_at - j)));
}

// Rows [begin, ...) of to [1, H, L, ..] receive those of from [1, H, rows, ..].
void copy_rows(const Tensor& from, int64_t begin, Tensor& to) {
  const int64_t rows = from.size(2), width = from.rank() == 4 ? from.size(3) : 1;
  for (int64_t h = 0; h < from.size(1); ++h) {
    std::copy_n(from.data_as<double>() + h * rows * width, rows * width,
                to.data_as<double>() + (h * to.size(2) + begin) * width);
  }
}

// A packed call, without probs: its sequences, each by itself.
AttentionReference packed_reference(const AttentionCall& call, const ReferenceOptions& options) {
  AttentionReference result;
  result.out = Tensor(DType::kFloat64, {1, call.num_heads(), call.q_len(), call.v_head_dim()});
  result.lse = Tensor(DType::kFloat64, {1, call.num_heads(), call.q_len()});
  if (options.budget) {
    result.out_budget = Tensor(DType::kFloat64, result.out.shape());
    result.lse_budget = Tensor(DType::kFloat64, result.lse.shape());
  }
  for (int64_t n = 0; n < call.num_sequences(); ++n) {
    std::vector<Mask> masks;
    const int64_t begin = call.sequence(n).q_begin;
    const AttentionReference alone =
        attention_forward_reference(sequence_alone(call, n, &masks), {.budget = options.budget});
    copy_rows(alone.out, begin, result.out);
    copy_rows(alone.lse, begin, result.lse);
    if (!options.budget) continue;
    copy_rows(alone.out_budget, begin, result.out_budget);
    copy_rows(alone.lse_budget, begin, result.lse_budget);
  }
  return result;
}

}  // namespace

double attention_bias_reference(const AttentionCall& call, int64_t b, int64_t h, int64_t i,
                                int64_t j) {
  double bias = 0;
  const DType dtype = call.query.dtype();
  for (const Mask& mask : call.masks) {
    if (mask.kind() == Mask::Kind::kAlibi) {
      const double term = rounded(dtype, -alibi_slope(mask, b, h)) * distance(call, mask, b, i, j);
      bias = rounded(dtype, bias + rounded(dtype, term));
      continue;
    }
    if (!is_tensor_mask(mask)) {
      if (!is_in_reach(call, mask, b, i, j)) return -kInf;
      continue;
    }
    const MaskStrides s = mask_strides(mask.tensor());
    const double number =
        number_at(mask.tensor(), b * s.batch + h * s.head + i * s.query + j * s.key);
    if (mask.kind() == Mask::Kind::kBoolean) {
      if ((number != 0) == (mask.sense() == MaskSense::kExcluded)) return -kInf;
      continue;
    }
    const double factor = rounded(dtype, mask.factor());
    const double term = factor == 1 ? number : rounded(dtype, factor * rounded(dtype, number));
    bias = rounded(dtype, bias + rounded(dtype, term));
  }
  return bias;
}

AttentionReference attention_forward_reference(const AttentionCall& call,
                                               const ReferenceOptions& options) {
  if (call.packed()) return packed_reference(call, options);
  const int64_t batch = call.batch(), heads = call.num_heads(), q_len = call.q_len(),
                v_dim = call.v_head_dim(), columns = call.kv_len() + call.num_extra();
  AttentionReference result;
  result.out = Tensor(DType::kFloat64, {batch, heads, q_len, v_dim});
  result.lse = Tensor(DType::kFloat64, {batch, heads, q_len});
  if (options.probs) result.probs = Tensor(DType::kFloat64, {batch, heads, q_len, columns});
  if (options.budget) {
    result.out_budget = Tensor(DType::kFloat64, {batch, heads, q_len, v_dim});
    result.lse_budget = Tensor(DType::kFloat64, {batch, heads, q_len});
    result.probs_budget =
        Tensor(DType::kFloat64, {batch, heads, q_len, options.probs ? columns : 0});
  }
  for (int64_t n = 0; n < batch * heads * q_len; ++n) {
    Row row(call, n / (heads * q_len), n / q_len % heads, n % q_len);
    row.softmax();
    result.lse.data_as<double>()[n] = row.lse();
    if (options.budget) result.lse_budget.data_as<double>()[n] = row.lse_budget();
    for (int64_t d = 0; d < v_dim; ++d) {
      double budget;
      row.output(d, result.out.data_as<double>() + n * v_dim + d, &budget);
      if (options.budget) result.out_budget.data_as<double>()[n * v_dim + d] = budget;
    }
    for (int64_t j = 0; options.probs && j < columns; ++j) {
      result.probs.data_as<double>()[n * columns + j] = row.prob(j);
      if (options.budget) {
        result.probs_budget.data_as<double>()[n * columns + j] = row.prob_budget(j);
      }
    }
  }
  return result;
}

}  // namespace polyhead
