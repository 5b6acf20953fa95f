// Section 13 of docs/canonical_order.md: the gradients, row after row. Nothing of the library is
// used here.
#pragma once

#include "forward.h"

namespace canonical {

template <class T>
struct Gradients {
  std::vector<T> d_query;                     // [B, H, L, D]
  std::vector<T> d_key, d_value;              // [B, Hkv, S, D], [B, Hkv, S, Dv]
  std::vector<T> d_extra_key, d_extra_value;  // [B, Hkv, X, D], ...: not summed over B yet
  std::vector<T> d_scores;                    // [B, H, L, S]
  std::vector<T> d_sinks;                     // [H], or empty
};

// One key of a row.
template <class T>
struct Pair {
  bool hidden, dropped;
  T p = 0, kept = 0, d_weight = 0, d_score = 0, slope = 1;
  const T *key = nullptr, *value = nullptr;
  T *d_key = nullptr, *d_value = nullptr;
};

template <class T>
class Backward {
 public:
  Backward(const Vector& vector, const Inputs<T>& inputs)
      : v(vector),
        in(inputs),
        cotangents(make_cotangents<T>(vector)),
        forward(run_attention(vector, inputs)) {
    const size_t kv_rows = v.batch * v.kv_heads * v.kv_len;
    const size_t extra_rows = v.batch * v.kv_heads * v.extra;
    result.d_key.resize(kv_rows * v.head_dim);
    result.d_value.resize(kv_rows * v.v_head_dim);
    result.d_extra_key.resize(extra_rows * v.head_dim);
    result.d_extra_value.resize(extra_rows * v.v_head_dim);
    result.d_sinks.resize(in.sinks.size());
  }

  Gradients<T> run() {
    for (size_t n = 0; n < v.batch * v.heads * v.q_len; ++n) row(n);
    return result;
  }

 private:
  void row(size_t n) {
    std::vector<Pair<T>> pairs = pairs_of(n);
    const T* d_out = cotangents.d_out.data() + n * v.v_head_dim;
    const T delta = delta_of(n, pairs, d_out);
    for (Pair<T>& pair : pairs) {
      if (!pair.hidden) differentiate(d_out, delta, &pair);
    }
    for (size_t j = 0; j < v.kv_len; ++j) result.d_scores.push_back(pairs[j].d_score);
    add_to_sink(n, delta);
    add_to_query(pairs);
    add_to_keys(in.query.data() + n * v.head_dim, d_out, pairs);
  }

  // Probabilities again, from lse.
  std::vector<Pair<T>> pairs_of(size_t n) {
    const Place at = place_of(v, n);
    const size_t kv = at.batch * v.kv_heads + at.kv_head;
    const Keys<T> own = keys_of_row(v, in, n), appended = appended_keys(v, in, n);
    const std::vector<T> query = scaled_query(v, in, n);
    std::vector<Pair<T>> pairs;
    for (size_t c = 0; c < v.kv_len + v.extra; ++c) {
      const bool is_own = c < v.kv_len;
      const size_t j = is_own ? c : c - v.kv_len;
      const Keys<T>& keys = is_own ? own : appended;
      Pair<T> pair{keys.hidden[j] != 0, keys.dropped[j] != 0};
      pair.key = keys.key + j * v.head_dim;
      pair.value = keys.value + j * v.v_head_dim;
      const size_t to = is_own ? kv * v.kv_len + j : kv * v.extra + j;
      pair.d_key = (is_own ? result.d_key : result.d_extra_key).data() + to * v.head_dim;
      pair.d_value = (is_own ? result.d_value : result.d_extra_value).data() + to * v.v_head_dim;
      if (!pair.hidden) fill_in(query, keys, j, n, &pair);
      pair.d_weight = d_weight_of(n, at, c);
      pairs.push_back(pair);
    }
    return pairs;
  }

  void fill_in(const std::vector<T>& query, const Keys<T>& keys, size_t j, size_t n,
               Pair<T>* pair) const {
    const T lse = forward.lse[n] == -kInfinity<T> ? kInfinity<T> : forward.lse[n];
    if (keys.softcap > 0) {
      const T t = tanh_of(dot_of(query, keys, j), keys.softcap);
      pair->slope = std::fma(-t, t, T{1});
    }
    pair->p = exponential(score_of(query, keys, j) - lse - forward.lse_rest[n]);
    pair->kept = pair->dropped ? T{0} : pair->p * dropout_factor<T>(v);
  }

  T d_weight_of(size_t n, const Place& at, size_t c) const {
    const size_t columns = v.kv_len + v.extra;
    if (v.weights == "heads") return cotangents.d_weights[n * columns + c];
    if (v.weights == "-") return 0;
    const T share = T{1} / static_cast<T>(v.heads);
    return cotangents.d_weights[(at.batch * v.q_len + at.row) * columns + c] * share;
  }

  T delta_of(size_t n, const std::vector<Pair<T>>& pairs, const T* d_out) const {
    T delta = 0;
    const T* out = forward.out.data() + n * v.v_head_dim;
    for (size_t d = 0; d < v.v_head_dim; ++d) delta = std::fma(d_out[d], out[d], delta);
    for (const Pair<T>& pair : pairs) {
      if (v.weights == "-" || pair.hidden || pair.dropped) continue;
      delta = std::fma(pair.kept, pair.d_weight, delta);
    }
    return delta;
  }

  void differentiate(const T* d_out, T delta, Pair<T>* pair) const {
    T d_p = 0;
    for (size_t d = 0; d < v.v_head_dim; ++d) d_p = std::fma(pair->value[d], d_out[d], d_p);
    d_p = d_p + pair->d_weight;
    d_p = pair->dropped ? T{0} : d_p * dropout_factor<T>(v);
    pair->d_score = pair->p * (d_p - delta);
  }

  T scaled(const Pair<T>& pair) const {
    const T d_score = v.softcap() > 0 ? pair.d_score * pair.slope : pair.d_score;
    return d_score * static_cast<T>(v.scale_number());
  }

  // 15
  void add_to_sink(size_t n, T delta) {
    const T* sink = sink_of(v, in, n);
    if (sink == nullptr) return;
    const T p = exponential(*sink - forward.lse[n] - forward.lse_rest[n]);
    result.d_sinks[place_of(v, n).head] += p * delta;
  }

  // Chunks of 512 keys, and the appended ones.
  void add_to_query(const std::vector<Pair<T>>& pairs) {
    std::vector<T> sum(v.head_dim);
    for (size_t begin = 0, end; begin < pairs.size(); begin = end) {
      end = begin < v.kv_len ? std::min(begin + 512, v.kv_len) : pairs.size();
      std::vector<T> part(v.head_dim);
      for (size_t c = begin; c < end; ++c) {
        if (pairs[c].hidden) continue;
        const T by = scaled(pairs[c]);
        for (size_t d = 0; d < v.head_dim; ++d) part[d] = std::fma(by, pairs[c].key[d], part[d]);
      }
      for (size_t d = 0; d < v.head_dim; ++d) sum[d] += part[d];
    }
    for (const T x : sum) result.d_query.push_back(x + T{0});
  }

  // Rows come in order, and so do the heads that share keys.
  void add_to_keys(const T* query, const T* d_out, const std::vector<Pair<T>>& pairs) const {
    for (const Pair<T>& pair : pairs) {
      if (pair.hidden) continue;
      const T by = scaled(pair);
      for (size_t d = 0; d < v.head_dim; ++d) {
        pair.d_key[d] = std::fma(by, query[d], pair.d_key[d]);
      }
      if (pair.dropped) continue;
      for (size_t d = 0; d < v.v_head_dim; ++d) {
        pair.d_value[d] = std::fma(pair.kept, d_out[d], pair.d_value[d]);
      }
    }
  }

  const Vector& v;
  const Inputs<T>& in;
  const Cotangents<T> cotangents;
  const Outputs<T> forward;
  Gradients<T> result;
};

// sums [B, n] -> [n], batch item after batch item.
template <class T>
std::vector<T> sum_over_batch(size_t batch, const std::vector<T>& sums) {
  std::vector<T> total(sums.size() / std::max<size_t>(batch, 1));
  for (size_t i = 0; i < sums.size(); ++i) total[i % total.size()] += sums[i];
  return total;
}

// d_scores of heads [first, last), summed over batch items and heads: [L, S].
template <class T>
std::vector<T> sum_over_heads(const Vector& v, const std::vector<T>& d_scores, size_t first,
                              size_t last) {
  const size_t pairs = v.q_len * v.kv_len;
  std::vector<T> sum(pairs);
  for (size_t b = 0; b < v.batch; ++b) {
    for (size_t h = first; h < last; ++h) {
      for (size_t i = 0; i < pairs; ++i) sum[i] += d_scores[(b * v.heads + h) * pairs + i];
    }
  }
  return sum;
}

// [L, S] -> [S] or [L].
template <class T>
std::vector<T> sum_over_rows(const Vector& v, const std::vector<T>& table) {
  std::vector<T> sum(v.kv_len);
  for (size_t i = 0; i < table.size(); ++i) sum[i % v.kv_len] += table[i];
  return sum;
}
template <class T>
std::vector<T> sum_over_keys(const Vector& v, const std::vector<T>& table) {
  std::vector<T> sum(v.q_len);
  for (size_t i = 0; i < table.size(); ++i) sum[i / v.kv_len] += table[i];
  return sum;
}

// In the mask's own shape.
template <class T>
std::vector<T> mask_gradient(const Vector& v, const MaskInput& mask,
                             const std::vector<T>& d_scores) {
  const bool by_head = mask.kind == 'g';
  std::vector<T> gradient;
  for (size_t h = 0; h < (by_head ? v.heads : 1); ++h) {
    std::vector<T> sum = sum_over_heads(v, d_scores, h, by_head ? h + 1 : v.heads);
    if (by_head) sum = sum_over_rows(v, sum);
    if (mask.kind == 'w') sum = sum_over_keys(v, sum);
    gradient.insert(gradient.end(), sum.begin(), sum.end());
  }
  for (T& x : gradient) x = static_cast<T>(mask.factor()) * x;
  return gradient;
}

// What the table has digests of: d_query; d_key and that of the appended columns; d_value, that of
// the appended ones, and those of the masks.
template <class T>
struct GradientsInOrder {
  std::vector<T> query, keys, values;
};

template <class T>
GradientsInOrder<T> run_backward(const Vector& v, const Inputs<T>& in) {
  const Gradients<T> gradients = Backward<T>(v, in).run();
  GradientsInOrder<T> result{gradients.d_query, gradients.d_key, gradients.d_value};
  const auto append = [](std::vector<T>* to, const std::vector<T>& more) {
    to->insert(to->end(), more.begin(), more.end());
  };
  append(&result.keys, sum_over_batch(v.batch, gradients.d_extra_key));
  append(&result.values, sum_over_batch(v.batch, gradients.d_extra_value));
  for (const MaskInput& mask : in.masks) {
    if (mask.differentiable()) append(&result.values, mask_gradient(v, mask, gradients.d_scores));
  }
  for (const T sum : gradients.d_sinks) result.values.push_back(T{0} - sum);
  for (std::vector<T>* numbers : {&result.keys, &result.values}) {
    for (T& x : *numbers) x += T{0};  // -0.0 becomes 0
  }
  return result;
}

}  // namespace canonical
