#include "attention/attention_backward_reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "attention/attention_reference.h"
#include "attention/score_mod.h"

namespace polyhead {
namespace {

double read(const ConstTensorView& view, int64_t a, int64_t b, int64_t c, int64_t d) {
  const int64_t offset =
      a * view.stride(0) + b * view.stride(1) + c * view.stride(2) + d * view.stride(3);
  return view.dtype() == DType::kFloat32 ? static_cast<double>(view.data_as<float>()[offset])
                                         : view.data_as<double>()[offset];
}

double* at(Tensor& tensor, int64_t a, int64_t b, int64_t c, int64_t d) {
  return tensor.data_as<double>() +
         ((a * tensor.size(1) + b) * tensor.size(2) + c) * tensor.size(3) + d;
}

// One matrix of key or value rows of a (batch, kv head): the call's own, then the appended ones.
struct Rows {
  const ConstTensorView& own;
  ConstTensorView extra;  // [1, Hkv, X, D] or undefined
  Tensor& d_own;
  Tensor& d_extra;  // [Hkv, X, D]
  int64_t batch, kv_head;

  double get(int64_t j, int64_t d) const {
    const int64_t s = own.size(2);
    return j < s ? read(own, batch, kv_head, j, d) : read(extra, 0, kv_head, j - s, d);
  }
  void add_gradient(int64_t j, int64_t d, double x) const {
    const int64_t s = own.size(2);
    if (j < s) {
      *at(d_own, batch, kv_head, j, d) += x;
    } else {
      d_extra.data_as<double>()[(kv_head * extra.size(2) + j - s) * extra.size(3) + d] += x;
    }
  }
};

class Backward {
 public:
  Backward(const AttentionCall& call, const AttentionCotangents& cotangents)
      : call_(call),
        cotangents_(cotangents),
        columns_(call.kv_len() + call.num_extra()),
        forward_(attention_forward_reference(softmax_alone(call), {.probs = true})),
        probs_(forward_.probs),
        gradients_(zero_gradients(call)) {
    if (call.num_extra() == 0) return;
    extra_key_ = call.extra_key.unsqueezed(0);
    extra_value_ = call.extra_value.unsqueezed(0);
  }

  ReferenceGradients run() {
    const int64_t heads = call_.num_heads(), q_len = call_.q_len();
    for (int64_t n = 0; n < call_.batch() * heads * q_len; ++n) {
      row(n / (heads * q_len), n / q_len % heads, n % q_len);
    }
    return std::move(gradients_);
  }

 private:
  // Whose probs are those of the softmax, and 0 in rows that are empty.
  static AttentionCall softmax_alone(AttentionCall call) {
    call.dropout = {};
    call.empty_rows = EmptyRow::kZero;
    return call;
  }

  void row(int64_t b, int64_t h, int64_t i) {
    const Rows key{call_.key, extra_key_,      gradients_.d_key, gradients_.d_extra_key,
                   b,         call_.kv_head(h)};
    const Rows value{call_.value, extra_value_,    gradients_.d_value, gradients_.d_extra_value,
                     b,           call_.kv_head(h)};
    std::vector<double> d_probs(static_cast<size_t>(columns_));
    double delta = 0;
    // forward: weights_ij = kept_ij p_ij, out_id = sum_j weights_ij v_jd
    for (int64_t j = 0; j < columns_; ++j) {
      const double kept = call_.kept(b, h, i, j);
      if (masked(b, h, i, j) || kept == 0) continue;
      const double p = *at(probs_, b, h, i, j);
      double d_w = d_weight(b, h, i, j);
      for (int64_t d = 0; d < call_.v_head_dim(); ++d) {
        const double d_out = read(cotangents_.d_out, b, h, i, d);
        d_w += d_out * value.get(j, d);
        value.add_gradient(j, d, kept * p * d_out);
      }
      d_probs[static_cast<size_t>(j)] = kept * d_w;
      delta += p * kept * d_w;
    }
    // forward: p_ij = exp(s_ij) / sum_k exp(s_ik), s_ij = cap(scale * q_i . k_j) + bias_ij
    for (int64_t j = 0; j < columns_; ++j) {
      if (masked(b, h, i, j)) continue;
      double d_score = *at(probs_, b, h, i, j) * (d_probs[static_cast<size_t>(j)] - delta);
      if (j < call_.kv_len()) add_to_masks(b, h, i, j, d_score);
      d_score = before_changes({b, h, i, j}, dot(b, h, i, key, j), d_score);
      for (int64_t d = 0; d < call_.head_dim(); ++d) {
        *at(gradients_.d_query, b, h, i, d) += call_.scale * d_score * key.get(j, d);
        key.add_gradient(j, d, call_.scale * d_score * read(call_.query, b, h, i, d));
      }
    }
    add_to_sink(b, h, i, delta);
  }

  double dot(int64_t b, int64_t h, int64_t i, const Rows& key, int64_t j) const {
    double dot = 0;
    for (int64_t d = 0; d < call_.head_dim(); ++d) {
      dot += read(call_.query, b, h, i, d) * key.get(j, d);
    }
    return call_.scale * dot;
  }

  // forward: score_mod(cap(x)), cap(x) = softcap * tanh(x / softcap)
  double before_changes(const int64_t (&bhij)[4], double x, double d_score) const {
    const double cap = call_.softcap, t = cap > 0 ? std::tanh(x / cap) : 0;
    if (call_.score_mod.forward != nullptr && bhij[3] < call_.kv_len()) {
      d_score = modified_gradient(call_, bhij, cap > 0 ? cap * t : x, d_score);
    }
    return cap > 0 ? d_score * (1 - t * t) : d_score;
  }

  // forward: p_sink = exp(sink) / sum_k exp(s_ik), which no value and no weight has a part in
  void add_to_sink(int64_t b, int64_t h, int64_t i, double delta) {
    if (!call_.sinks.defined()) return;
    const double lse =
        forward_.lse.data_as<double>()[(b * call_.num_heads() + h) * call_.q_len() + i];
    const double sink = read(call_.sinks.unsqueezed(0).unsqueezed(0).unsqueezed(0), 0, 0, 0, h);
    if (lse == -std::numeric_limits<double>::infinity()) return;
    gradients_.d_sinks.data_as<double>()[h] -= std::exp(sink - lse) * delta;
  }

  // By a mask, or by a score_mod, whose pairs have no other way to a probability of 0.
  bool masked(int64_t b, int64_t h, int64_t i, int64_t j) const {
    if (j >= call_.kv_len()) return false;
    if (call_.score_mod.forward != nullptr && *at(probs_, b, h, i, j) == 0) return true;
    return attention_bias_reference(call_, b, h, i, j) == -std::numeric_limits<double>::infinity();
  }

  double d_weight(int64_t b, int64_t h, int64_t i, int64_t j) const {
    const ConstTensorView& d_weights = cotangents_.d_weights;
    if (!d_weights.defined()) return 0;
    if (call_.weights_mode == WeightsMode::kPerHead) return read(d_weights, b, h, i, j);
    return read(d_weights.unsqueezed(1), b, 0, i, j) / static_cast<double>(call_.num_heads());
  }

  // forward: bias_ij = sum over the additive masks of factor * mask
  void add_to_masks(int64_t b, int64_t h, int64_t i, int64_t j, double d_score) {
    for (size_t n = 0; n < call_.masks.size(); ++n) {
      Tensor& d_mask = gradients_.d_masks[n];
      if (!d_mask.defined()) continue;
      const MaskStrides s = mask_strides(d_mask);
      d_mask.data_as<double>()[b * s.batch + h * s.head + i * s.query + j * s.key] +=
          call_.masks[n].factor() * d_score;
    }
  }

  const AttentionCall& call_;
  const AttentionCotangents& cotangents_;
  int64_t columns_;
  AttentionReference forward_;
  Tensor& probs_;  // [B, H, L, S + X]
  ConstTensorView extra_key_, extra_value_;
  ReferenceGradients gradients_;
};

// Rows of a sequence, [1, heads, rows, n], to where they are in [1, heads, all, n].
void copy_rows(const Tensor& from, int64_t begin, Tensor& to) {
  const int64_t count = from.size(2) * from.size(3);
  for (int64_t h = 0; h < from.size(1); ++h) {
    std::copy_n(from.data_as<double>() + h * count, count, at(to, 0, h, begin, 0));
  }
}

void add(const Tensor& from, Tensor& to) {
  for (int64_t n = 0; n < from.numel(); ++n) to.data_as<double>()[n] += from.data_as<double>()[n];
}

// The gradient of a sequence's part of a mask, to where it is in the whole [.., L, S].
void add_part(const Tensor& from, const Sequence& of, Tensor& to) {
  if (!from.defined() || from.numel() == 0) return;
  const int query = to.rank() - 2, key = to.rank() - 1;
  const int64_t first_row = to.size(query) == 1 ? 0 : of.q_begin;
  const int64_t first_key = to.size(key) == 1 ? 0 : of.k_begin;
  const int64_t rows = from.size(query), keys = from.size(key);
  for (int64_t n = 0; n < from.numel(); ++n) {
    const int64_t row = n / keys / rows * to.size(query) + first_row + n / keys % rows;
    to.data_as<double>()[row * to.size(key) + first_key + n % keys] += from.data_as<double>()[n];
  }
}

}  // namespace

ReferenceGradients zero_gradients(const AttentionCall& call) {
  constexpr DType kType = DType::kFloat64;
  ReferenceGradients zeros;
  zeros.d_query = Tensor(kType, call.query.shape());
  zeros.d_key = Tensor(kType, call.key.shape());
  zeros.d_value = Tensor(kType, call.value.shape());
  if (call.num_extra() > 0) {
    zeros.d_extra_key = Tensor(kType, call.extra_key.shape());
    zeros.d_extra_value = Tensor(kType, call.extra_value.shape());
  }
  for (const Mask& mask : call.masks) {
    const bool has = mask.kind() == Mask::Kind::kAdditive;
    zeros.d_masks.push_back(has ? Tensor(kType, mask.tensor().shape()) : Tensor());
  }
  if (call.sinks.defined()) zeros.d_sinks = Tensor(kType, call.sinks.shape());
  return zeros;
}

ReferenceGradients gradients_of_sequences(
    const AttentionCall& call, const AttentionCotangents& cotangents,
    const std::function<ReferenceGradients(const AttentionCall&, const AttentionCotangents&)>&
        alone) {
  ReferenceGradients result = zero_gradients(call);
  for (int64_t n = 0; n < call.num_sequences(); ++n) {
    const Sequence of = call.sequence(n);
    std::vector<Mask> masks;
    const ReferenceGradients one =
        alone(sequence_alone(call, n, &masks), {cotangents.d_out.narrow(2, of.q_begin, of.q_len)});
    copy_rows(one.d_query, of.q_begin, result.d_query);
    copy_rows(one.d_key, of.k_begin, result.d_key);
    copy_rows(one.d_value, of.k_begin, result.d_value);
    add(one.d_extra_key, result.d_extra_key);
    add(one.d_extra_value, result.d_extra_value);
    add(one.d_sinks, result.d_sinks);
    for (size_t m = 0; m < masks.size(); ++m) add_part(one.d_masks[m], of, result.d_masks[m]);
  }
  return result;
}

ReferenceGradients attention_backward_reference(const AttentionCall& call,
                                                const AttentionCotangents& cotangents) {
  const auto of = [](const AttentionCall& one, const AttentionCotangents& its) {
    return Backward(one, its).run();
  };
  return call.packed() ? gradients_of_sequences(call, cotangents, of) : of(call, cotangents);
}

}  // namespace polyhead
