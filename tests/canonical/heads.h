// Section 16 of docs/canonical_order.md: norm and rotation of heads, forward and backward.
#pragma once

#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "inputs.h"

namespace canonical {

// step[i] = the whole number nearest to 2^64 * ratio^-i / (2 pi): the base is ratio^(rotary_dim /
// 2), so that whole numbers of 128 bits are enough.
inline std::vector<uint64_t> rotary_steps(size_t rotary_dim, uint64_t ratio) {
  __extension__ using Wide = unsigned __int128;
  Wide turns = (Wide{0x28be60db9391054aU} << 64) + 0x7f09d5f47d4d3770U;  // 2^128 / (2 pi)
  std::vector<uint64_t> steps;
  for (size_t i = 0; i < rotary_dim / 2; ++i, turns /= ratio) {
    steps.push_back(static_cast<uint64_t>((turns + (Wide{1} << 63)) >> 64));
  }
  return steps;
}

inline std::pair<double, double> sine_cosine(uint64_t phase) {
  const uint64_t quarter = (phase + (uint64_t{1} << 61)) / (uint64_t{1} << 62) % 4;
  const auto rest = static_cast<int64_t>(phase - quarter * (uint64_t{1} << 62));
  const double a = static_cast<double>(rest) * 0x1.921fb54442d18p-62, w = a * a;
  double factorial[18] = {1}, r = 0, q = 0;
  for (int n = 1; n < 18; ++n) factorial[n] = factorial[n - 1] * n;  // exact
  for (int n = 17; n >= 3; n -= 2) r = (n == 17 ? 0 : r * w) + (n % 4 == 1 ? 1 : -1) / factorial[n];
  for (int n = 16; n >= 2; n -= 2) q = (n == 16 ? 0 : q * w) + (n % 4 == 0 ? 1 : -1) / factorial[n];
  const double s = a + a * (w * r), c = 1 + w * q;
  const double sines[] = {s, c, -s, -c};
  return {sines[quarter], sines[(quarter + 1) % 4]};
}

template <class T>
T chained_sum(const T* a, const T* b, size_t count) {
  T chain[16] = {};
  for (size_t d = 0; d < count; ++d) chain[d % 16] = std::fma(a[d], b[d], chain[d % 16]);
  for (size_t half = 8; half > 0; half /= 2) {
    for (size_t c = 0; c < half; ++c) chain[c] = chain[c] + chain[c + half];
  }
  return chain[0];
}

template <class T>
T inverse_norm(const T* x, size_t dim) {
  return 1 /
         std::sqrt(chained_sum(x, x, dim) / static_cast<T>(dim) + static_cast<T>(kHeadsEpsilon));
}

// Row y of the token at `position`, turned; back: with sines negated.
template <class T>
void rotate(const Vector& v, const std::vector<uint64_t>& steps, size_t position, bool back, T* y) {
  for (size_t i = 0; i < steps.size(); ++i) {
    const auto [s, c] = sine_cosine(position * steps[i]);
    const T sine = static_cast<T>(back ? -s : s), cosine = static_cast<T>(c);
    T& p = y[v.has('i') ? 2 * i : i];
    T& q = y[v.has('i') ? 2 * i + 1 : i + steps.size()];
    const T a = p, b = q;
    p = std::fma(a, cosine, -(b * sine));
    q = std::fma(b, cosine, a * sine);
  }
}

// d: the gradient of the norm's result, then that of x; d_weight is added to.
template <class T>
void norm_backward(const T* x, const T* weight, size_t dim, T* d, T* d_weight) {
  const T inverse = inverse_norm(x, dim);
  for (size_t i = 0; i < dim; ++i) {
    d_weight[i] = std::fma(d[i], x[i] * inverse, d_weight[i]);
    d[i] = d[i] * weight[i];
  }
  const T mean = chained_sum(d, x, dim) * inverse / static_cast<T>(dim);
  for (size_t i = 0; i < dim; ++i) d[i] = std::fma(-mean, x[i] * inverse, d[i]) * inverse;
}

template <class T>
struct HeadsOutputs {
  std::vector<T> y, d_x;    // [B, H, L, D]
  std::vector<T> d_weight;  // [D], zeros without a norm
};

template <class T>
HeadsOutputs<T> run_heads(const Vector& v, const Inputs<T>& in) {
  const size_t dim = v.head_dim;
  const std::vector<uint64_t> steps = rotary_steps(v.v_head_dim, v.rope_ratio());
  HeadsOutputs<T> result{in.query, in.key, std::vector<T>(dim)};
  std::vector<T> block(dim), own(dim);
  for (size_t l = 0; l < v.q_len; ++l) {
    own.assign(dim, 0);
    for (size_t n = 0; n < v.batch * v.heads; ++n) {
      const size_t at = (n * v.q_len + l) * dim;
      T *y = result.y.data() + at, *d = result.d_x.data() + at;
      rotate(v, steps, v.kv_len + l, /*back=*/true, d);
      if (v.extra == 1) {
        norm_backward(in.query.data() + at, in.value.data(), dim, d, own.data());
        const T inverse = inverse_norm(y, dim);
        for (size_t i = 0; i < dim; ++i) y[i] = y[i] * inverse * in.value[i];
      }
      rotate(v, steps, v.kv_len + l, /*back=*/false, y);
    }
    for (size_t i = 0; i < dim; ++i) block[i] = block[i] + own[i];
    if ((l + 1) % 32 != 0 && l + 1 != v.q_len) continue;
    for (size_t i = 0; i < dim; ++i) result.d_weight[i] = result.d_weight[i] + block[i];
    block.assign(dim, 0);
  }
  return result;
}

}  // namespace canonical
