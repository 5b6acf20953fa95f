#include <cmath>
#include <limits>
#include <vector>

#include "attention/attention_reference.h"
#include "testing/backward_check.h"
#include "testing/elements.h"
#include "testing/tolerance.h"

namespace polyhead::oracle {
namespace {

double smallest_subnormal(DType dtype) { return dtype == DType::kFloat32 ? 0x1p-149 : 0x1p-1074; }
double flush_limit(DType dtype) { return dtype == DType::kFloat32 ? 0x1p-123 : 0x1p-1019; }

// Follows the reference pair by pair, with magnitudes in the place of numbers and the roundings of
// each step beside them.
class Budget {
 public:
  Budget(const AttentionCall& call, const AttentionCotangents& cotangents, bool with_rest)
      : call_(without_nan_rows(call)),
        cotangents_(cotangents),
        with_rest_(with_rest),
        forward_(attention_forward_reference(call_, {.budget = true})),
        probs_(attention_forward_reference(undropped(call_), {.probs = true}).probs),
        budget_(zero_gradients(call)),
        u_(unit_roundoff(call_.query.dtype())),
        v_roundings_(std::sqrt(static_cast<double>(call_.v_head_dim())) + 3),
        columns_(call_.kv_len() + call_.num_extra()) {
    // Where numbers are subnormal every addition rounds by itself.
    const auto longest_sum =
        static_cast<double>(call_.batch() * call_.num_heads() * call_.q_len() + columns_);
    const double least = (16 + std::sqrt(longest_sum)) * smallest_subnormal(call_.query.dtype());
    for (Tensor* tensor : tensors()) {
      if (tensor->defined()) fill(*tensor, least);
    }
  }

  ReferenceGradients run() {
    for (int64_t b = 0; b < call_.batch(); ++b) {
      for (int64_t h = 0; h < call_.num_heads(); ++h) {
        for (int64_t i = 0; i < call_.q_len(); ++i) row(b, h, i);
      }
    }
    return std::move(budget_);
  }

 private:
  static AttentionCall without_nan_rows(AttentionCall call) {
    call.empty_rows = EmptyRow::kZero;
    return call;
  }
  static AttentionCall undropped(AttentionCall call) {
    call.dropout = {};
    return call;
  }

  // One pair's numbers and their errors; d_p is what dropout leaves of it.
  struct Pair {
    bool seen = false;
    double p = 0, p_error = 0, kept = 0, d_p = 0, d_p_error = 0;
  };

  std::vector<Tensor*> tensors() {
    std::vector<Tensor*> all = {&budget_.d_query,     &budget_.d_key,         &budget_.d_value,
                                &budget_.d_extra_key, &budget_.d_extra_value, &budget_.d_sinks};
    for (Tensor& mask : budget_.d_masks) all.push_back(&mask);
    return all;
  }

  double key(const ConstTensorView& own, const ConstTensorView& extra, const Index& bhjd) const {
    const int64_t kv_head = call_.kv_head(bhjd[1]), s = call_.kv_len();
    if (bhjd[2] < s) return std::abs(read(own, {bhjd[0], kv_head, bhjd[2], bhjd[3]}));
    return std::abs(read(extra, {kv_head, bhjd[2] - s, bhjd[3]}));
  }

  void add(Tensor& own, Tensor& extra, const Index& bhjd, double x) const {
    const int64_t kv_head = call_.kv_head(bhjd[1]), s = call_.kv_len();
    const bool is_own = bhjd[2] < s;
    const Index at =
        is_own ? Index{bhjd[0], kv_head, bhjd[2], bhjd[3]} : Index{kv_head, bhjd[2] - s, bhjd[3]};
    write(is_own ? own : extra, at, read(is_own ? own : extra, at) + x);
  }

  double d_weight(int64_t b, int64_t h, int64_t i, int64_t j) const {
    const ConstTensorView& d_weights = cotangents_.d_weights;
    if (!d_weights.defined()) return 0;
    if (call_.weights_mode == WeightsMode::kPerHead) return read(d_weights, {b, h, i, j});
    return read(d_weights, {b, i, j}) / static_cast<double>(call_.num_heads());
  }

  bool hidden(int64_t b, int64_t h, int64_t i, int64_t j) const {
    return j < call_.kv_len() &&
           attention_bias_reference(call_, b, h, i, j) == -std::numeric_limits<double>::infinity();
  }

  Pair pair(int64_t b, int64_t h, int64_t i, int64_t j) const {
    Pair pair;
    pair.seen = !hidden(b, h, i, j);
    if (!pair.seen) return pair;
    pair.p = read(probs_, {b, h, i, j});
    pair.kept = call_.kept(b, h, i, j);
    double lse_budget = read(forward_.lse_budget, {b, h, i});
    if (pair.p > 0 && with_rest_) {  // which is what rounding lse took from it
      lse_budget -= u_ * std::abs(read(forward_.lse, {b, h, i}));
    }
    const double below = pair.p > 0 ? -std::log(pair.p) : 0;
    pair.p_error = pair.p * (2 * lse_budget + u_ * (3 * std::abs(below) + 4)) +
                   2 * std::min(pair.p, flush_limit(call_.query.dtype()));
    double magnitude = 0;
    for (int64_t d = 0; d < call_.v_head_dim(); ++d) {
      const double product = read(cotangents_.d_out, {b, h, i, d}) * signed_value(b, h, j, d);
      pair.d_p += product;
      magnitude += std::abs(product);
    }
    const double weight = d_weight(b, h, i, j);
    pair.d_p += weight;
    pair.d_p *= pair.kept;
    pair.d_p_error = pair.kept * u_ * ((v_roundings_ + 2) * magnitude + 5 * std::abs(weight));
    return pair;
  }

  double signed_value(int64_t b, int64_t h, int64_t j, int64_t d) const {
    const int64_t kv_head = call_.kv_head(h), s = call_.kv_len();
    return j < s ? read(call_.value, {b, kv_head, j, d})
                 : read(call_.extra_value, {kv_head, j - s, d});
  }

  // Also of the saved out, which was rounded when the forward wrote it.
  double delta_error(int64_t b, int64_t h, int64_t i, const std::vector<Pair>& pairs) const {
    double error = 0;
    for (int64_t d = 0; d < call_.v_head_dim(); ++d) {
      const double d_out = std::abs(read(cotangents_.d_out, {b, h, i, d}));
      const double out = std::abs(read(forward_.out, {b, h, i, d}));
      error += d_out * (read(forward_.out_budget, {b, h, i, d}) + u_ * v_roundings_ * out);
    }
    const double roundings = std::sqrt(static_cast<double>(columns_)) + 3;
    for (int64_t j = 0; j < columns_; ++j) {
      const Pair& pair = pairs[static_cast<size_t>(j)];
      const double weight = std::abs(d_weight(b, h, i, j));
      error += pair.kept * weight * (pair.p_error + u_ * roundings * pair.p);
    }
    return error;
  }

  void row(int64_t b, int64_t h, int64_t i) {
    std::vector<Pair> pairs(static_cast<size_t>(columns_));
    double delta = 0;
    for (int64_t j = 0; j < columns_; ++j) {
      Pair& p = pairs[static_cast<size_t>(j)];
      p = pair(b, h, i, j);
      delta += p.p * p.d_p;
    }
    const double delta_err = delta_error(b, h, i, pairs);
    for (int64_t j = 0; j < columns_; ++j) {
      const Pair& p = pairs[static_cast<size_t>(j)];
      if (!p.seen) continue;
      const double difference = std::abs(p.d_p - delta);
      const double d_score = p.p * difference;
      const double error =
          p.p_error * difference + p.p * (p.d_p_error + delta_err) + 4 * u_ * d_score;
      spread({b, h, i, j}, p, d_score, error + (call_.softcap > 0 ? cap_error(d_score) : 0));
    }
    spread_to_sink({b, h, i}, delta, delta_err);
  }

  // The slope of the softcap: that of tanh where its argument is off by all that scores are.
  double cap_error(double d_score) const { return 16 * u_ * d_score; }

  void spread_to_sink(const Index& bhi, double delta, double delta_err) {
    if (!call_.sinks.defined()) return;
    const double below = read(call_.sinks, {bhi[1]}) - read(forward_.lse, bhi);
    const double p = std::exp(below);
    const double rows = static_cast<double>(call_.batch() * call_.q_len());
    const double p_error =
        p * (2 * read(forward_.lse_budget, bhi) + u_ * (3 * std::abs(below) + 4)) +
        2 * std::min(p, flush_limit(call_.query.dtype()));
    const double term = std::abs(delta) * p;
    write(budget_.d_sinks, {bhi[1]},
          read(budget_.d_sinks, {bhi[1]}) + p * delta_err + p_error * std::abs(delta) +
              u_ * (std::sqrt(rows) + 4) * term);
  }

  // What one pair's errors do to the sums it is in.
  void spread(const Index& bhij, const Pair& pair, double d_score, double error) {
    const auto [b, h, i, j] = std::array{bhij[0], bhij[1], bhij[2], bhij[3]};
    const double group = static_cast<double>(call_.num_heads() / call_.num_kv_heads());
    const double of_keys = u_ * (std::sqrt(static_cast<double>(columns_)) + 4);
    const double batch = j < call_.kv_len() ? 1 : static_cast<double>(call_.batch());
    const double of_rows = u_ * (std::sqrt(static_cast<double>(call_.q_len()) * group * batch) + 4);
    for (int64_t d = 0; d < call_.v_head_dim(); ++d) {
      const double d_out = std::abs(read(cotangents_.d_out, {b, h, i, d}));
      add(budget_.d_value, budget_.d_extra_value, {b, h, j, d},
          d_out * pair.kept * (pair.p_error + of_rows * pair.p));
    }
    for (int64_t d = 0; d < call_.head_dim(); ++d) {
      const double query = std::abs(read(call_.query, {b, h, i, d}));
      const double scale = std::abs(call_.scale);
      add(budget_.d_key, budget_.d_extra_key, {b, h, j, d},
          scale * query * (error + of_rows * d_score));
      const Index at = {b, h, i, d};
      write(budget_.d_query, at,
            read(budget_.d_query, at) + scale * (error + of_keys * d_score) *
                                            key(call_.key, call_.extra_key, {b, h, j, d}));
    }
    if (j < call_.kv_len()) spread_to_masks(bhij, d_score, error);
  }

  void spread_to_masks(const Index& bhij, double d_score, double error) {
    for (size_t n = 0; n < budget_.d_masks.size(); ++n) {
      Tensor& mask = budget_.d_masks[n];
      if (!mask.defined()) continue;
      Index at{};
      double terms = 1;
      for (int dim = 0; dim < mask.rank(); ++dim) {
        const auto full = static_cast<size_t>(dim + 4 - mask.rank());
        const int64_t sizes[] = {call_.batch(), call_.num_heads(), call_.q_len(), call_.kv_len()};
        at[static_cast<size_t>(dim)] = mask.size(dim) == 1 ? 0 : bhij[full];
        if (mask.size(dim) == 1) terms *= static_cast<double>(sizes[full]);
      }
      for (int dim = mask.rank(); dim < 4; ++dim) {
        terms *= static_cast<double>(dim == 3 ? call_.num_heads() : call_.batch());
      }
      const double factor = std::abs(call_.masks[n].factor());
      write(mask, at, read(mask, at) + factor * (error + u_ * (std::sqrt(terms) + 4) * d_score));
    }
  }

  AttentionCall call_;
  AttentionCotangents cotangents_;
  bool with_rest_;
  AttentionReference forward_;
  Tensor probs_;  // [B, H, L, S + X] before dropout
  ReferenceGradients budget_;
  double u_, v_roundings_;
  int64_t columns_;
};

}  // namespace

ReferenceGradients backward_budget(const BackwardProblem& problem) {
  const AttentionCall call = problem.problem.call();
  const auto of = [&](const AttentionCall& one, const AttentionCotangents& cotangents) {
    return Budget(one, cotangents, problem.problem.spec.with_rest).run();
  };
  return call.packed() ? gradients_of_sequences(call, problem.cotangents(), of)
                       : of(call, problem.cotangents());
}

}  // namespace polyhead::oracle
