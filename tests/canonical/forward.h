// Sections 1 to 10 and 12 of docs/canonical_order.md: the forward, row after row. Nothing of the
// library is used here.
#pragma once

#include <algorithm>

#include "inputs.h"

namespace canonical {

template <class T>
inline constexpr T kInfinity = std::numeric_limits<T>::infinity();

template <class T>
T polynomial(T f) {
  static const float single[] = {0x1.e974fep-10F, 0x1.277854p-7F, 0x1.c91ce6p-5F,
                                 0x1.ebdb56p-3F,  0x1.62e4bap-1F, 1};
  static const double twice[] = {
      0x1.58566d9274442p-31, 0x1.c2c479bbcd06ep-28, 0x1.b85f42b4ae873p-24, 0x1.628f3585d6d03p-20,
      0x1.ffcfc6a98a6abp-17, 0x1.4308fa1dd29cap-13, 0x1.5d87ff4d2259fp-10, 0x1.3b2ab6f734171p-7,
      0x1.c6b08d7065838p-5,  0x1.ebfbdff82c04bp-3,  0x1.62e42fefa39f5p-1,  1};
  if constexpr (sizeof(T) == 4) {
    float p = single[0];
    for (int i = 1; i < 6; ++i) p = std::fma(p, f, single[i]);
    return p;
  } else {
    double p = twice[0];
    for (int i = 1; i < 12; ++i) p = std::fma(p, f, twice[i]);
    return p;
  }
}

// 4
template <class T>
T power_of_two(T t) {
  if (t != t) return t;
  if (t < (sizeof(T) == 4 ? T{-125} : T{-1021})) return 0;
  const T whole = std::floor(t);
  T fraction = t - whole;
  if (whole + fraction > t) fraction = std::nextafter(fraction, T{0});
  return std::ldexp(polynomial(fraction), static_cast<int>(whole));
}

template <class T>
T exponential(T x) {
  return power_of_two(x * static_cast<T>(0x1.71547652b82fep+0));
}

// 5
template <class T>
T factor(T from, T to) {
  return from == to ? T{1} : exponential(from - to);
}

// 14
template <class T>
T hyperbolic_tangent(T x) {
  static const float single[] = {-0x1.c7033cp-8F, 0x1.5fc692p-6F, -0x1.b9d2aep-5F, 0x1.11108p-3F,
                                 -0x1.555554p-2F};
  static const double twice[] = {
      0x1.f2ddeb9a07da7p-15, -0x1.cf9f3fe656023p-13, 0x1.32b0b92ad1a40p-11, -0x1.7d68abe445c4bp-10,
      0x1.d6d0a485132ebp-9,  -0x1.226e27ed0ac68p-7,  0x1.664f484114832p-6,  -0x1.ba1ba1b9783d6p-5,
      0x1.1111111110c21p-3,  -0x1.5555555555555p-2};
  const T size = x < 0 ? -x : x, z = x * x;
  if (size > T{0.5}) {
    const T falls = exponential(-2 * size);
    const T far = (1 - falls) / (1 + falls);
    return x < 0 ? -far : far;
  }
  T p = 0;
  if constexpr (sizeof(T) == 4) {
    for (const T c : single) p = std::fma(p, z, c);
  } else {
    for (const T c : twice) p = std::fma(p, z, c);
  }
  return std::fma(x * z, p, x);
}

// 9
inline double logarithm(double x) {
  if (!(x < HUGE_VAL)) return x;
  int e;
  double f = std::frexp(x, &e);  // in [1/2, 1)
  if (f < 0x1.6a09e667f3bcdp-1) {
    f *= 2;
    --e;
  }
  const double z = (f - 1) / (f + 1), w = z * z;
  double series = 0;
  for (int n = 21; n >= 3; n -= 2) series = series * w + 1.0 / n;
  const double high = 0x1.62e42fefa3800p-1, low = 0x1.ef35793c76730p-45;
  return e * high + (2 * z + (2 * z * w * series + e * low));
}

// What a run of keys has given so far.
template <class T>
struct State {
  explicit State(size_t width) : out(width, T{0}) {}
  T m = 0, limit = -kInfinity<T>, l = 0;
  std::vector<T> out;  // [Dv]
};

// Keys and values of one head, and what one row's masks do to them.
template <class T>
struct Keys {
  const T *key, *value;      // [count, D], [count, Dv]
  std::vector<T> bias;       // [count], or empty
  std::vector<char> hidden;  // [count]
  size_t count;
  std::vector<char> dropped = {};  // [count]
  T softcap = 0;                   // 0: none
};

// One row's probabilities, and the m under which each was made.
template <class T>
struct Row {
  std::vector<T> query;        // [D] times scale
  std::vector<T> probs, m_at;  // [S + X]
};

template <class T>
T greater(T a, T b) {
  return a > b ? a : b;
}

// 3
template <class T>
T dot_of(const std::vector<T>& query, const Keys<T>& keys, size_t j) {
  T sum = 0;
  for (size_t d = 0; d < query.size(); ++d) {
    sum = std::fma(query[d], keys.key[j * query.size() + d], sum);
  }
  return sum;
}

// 14: of the score before it is capped.
template <class T>
T tanh_of(T score, T softcap) {
  const T x = score * static_cast<T>(1 / static_cast<double>(softcap));
  return hyperbolic_tangent(x);
}

template <class T>
T score_of(const std::vector<T>& query, const Keys<T>& keys, size_t j) {
  T sum = dot_of(query, keys, j);
  if (keys.softcap > 0) sum = tanh_of(sum, keys.softcap) * keys.softcap;
  return keys.bias.empty() ? sum : sum + keys.bias[j];
}

// 3: of the keys [first, first + 8); -inf for those that are hidden or do not exist.
template <class T>
void score_granule(const Row<T>& row, const Keys<T>& keys, size_t first, T (&s)[8]) {
  for (size_t j = 0; j < 8; ++j) {
    const bool seen = first + j < keys.count && !keys.hidden[first + j];
    s[j] = seen ? score_of(row.query, keys, first + j) : -kInfinity<T>;
  }
}

// 5
template <class T>
void follow_maximum(const T (&s)[8], State<T>* state) {
  const T highest = greater(greater(greater(s[0], s[1]), greater(s[2], s[3])),
                            greater(greater(s[4], s[5]), greater(s[6], s[7])));
  if (!(highest > state->limit)) return;
  if (state->limit > -kInfinity<T>) {
    const T by = factor(state->m, highest);
    state->l *= by;
    for (T& o : state->out) o *= by;
  }
  state->m = highest;
  state->limit = highest + 16;
}

// 6: the keys [first, first + 8), whose probabilities go to row->probs[column...].
template <class T>
void take_granule(const Keys<T>& keys, size_t first, size_t column, Row<T>* row, State<T>* state) {
  T s[8];
  score_granule(*row, keys, first, s);
  follow_maximum(s, state);
  const size_t width = state->out.size();
  for (size_t j = 0; j < 8 && first + j < keys.count; ++j) {
    const bool hidden = keys.hidden[first + j] != 0;
    const T p = hidden ? T{0} : exponential(s[j] - state->m);
    const bool dropped = keys.dropped[first + j] != 0;
    row->probs[column + j] = dropped ? T{0} : p;
    row->m_at[column + j] = state->m;
    state->l += p;
    if (hidden || dropped) continue;
    const T* value = keys.value + (first + j) * width;
    for (size_t d = 0; d < width; ++d) state->out[d] = std::fma(p, value[d], state->out[d]);
  }
}

// 7
template <class T>
void fold(const State<T>& chunk, State<T>* total) {
  if (chunk.l == 0) return;
  if (total->l == 0) {
    *total = chunk;
    return;
  }
  const T m = greater(total->m, chunk.m);
  const T keep = factor(total->m, m), add = factor(chunk.m, m);
  total->m = m;
  total->l = std::fma(chunk.l, add, total->l * keep);
  for (size_t d = 0; d < total->out.size(); ++d) {
    total->out[d] = std::fma(chunk.out[d], add, total->out[d] * keep);
  }
}

template <class T>
struct Outputs {
  std::vector<T> out, lse, lse_rest, weights;
};

// 3, 5, 6, 7; 15: sink, null where there is none.
template <class T>
State<T> run_row(const Keys<T>& keys, const Keys<T>& extra, const T* sink, size_t width,
                 Row<T>* row) {
  State<T> total(width);
  for (size_t begin = 0; begin < keys.count; begin += 1024) {
    State<T> chunk(width);
    const size_t end = std::min(keys.count, begin + 1024);
    for (size_t j = begin; j < end; j += 8) take_granule(keys, j, j, row, &chunk);
    fold(chunk, &total);
  }
  if (extra.count > 0) {
    State<T> chunk(width);
    take_granule(extra, 0, keys.count, row, &chunk);
    fold(chunk, &total);
  }
  if (sink != nullptr) {
    State<T> chunk(width);
    chunk.m = *sink;
    chunk.l = 1;
    fold(chunk, &total);
  }
  return total;
}

// 12
inline void philox(uint32_t (&x)[4], uint64_t seed) {
  uint32_t key[] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * x[0], b = uint64_t{0xCD9E8D57} * x[2];
    x[0] = static_cast<uint32_t>(b >> 32) ^ x[1] ^ key[0];
    x[1] = static_cast<uint32_t>(b);
    x[2] = static_cast<uint32_t>(a >> 32) ^ x[3] ^ key[1];
    x[3] = static_cast<uint32_t>(a);
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
}

inline uint32_t threshold_of(const Vector& v) {
  return static_cast<uint32_t>(std::floor(65536 * v.dropout_p() + 0.5));
}

template <class T>
T dropout_factor(const Vector& v) {
  return threshold_of(v) == 65536 ? T{0} : static_cast<T>(65536.0 / (65536 - threshold_of(v)));
}

// 12: of row n = (b H + h) L + i. `granule`: of the first key.
inline std::vector<char> dropped_of(const Vector& v, size_t n, size_t count, uint32_t granule) {
  std::vector<char> dropped;
  for (size_t j = 0; j < count; ++j) {
    uint32_t x[] = {kDropoutCall, static_cast<uint32_t>(n / v.q_len),
                    static_cast<uint32_t>(n % v.q_len), granule + static_cast<uint32_t>(j / 8)};
    philox(x, kDropoutSeed);
    const uint32_t draw = (x[j % 8 / 2] >> (16 * (j % 2))) % 65536;
    dropped.push_back(draw < threshold_of(v));
  }
  return dropped;
}

// 8, 9, 10
template <class T>
void finish_row(const Vector& v, const State<T>& total, const Row<T>& row, size_t n,
                Outputs<T>* to) {
  const bool empty = total.l == 0, nan = v.empty == "nan" && !row.probs.empty();
  const T for_empty = nan ? std::numeric_limits<T>::quiet_NaN() : T{0};
  const T inverse = dropout_factor<T>(v) / total.l;
  for (const T o : total.out) to->out.push_back(empty ? for_empty : o * inverse + T{0});
  const double lse = empty ? -kInfinity<double>
                           : static_cast<double>(total.m) + logarithm(static_cast<double>(total.l));
  to->lse.push_back(static_cast<T>(lse));
  const double rest = lse - static_cast<double>(to->lse.back());
  to->lse_rest.push_back(rest == rest ? static_cast<T>(rest) : T{0});
  const size_t columns = row.probs.size();
  for (size_t c = 0; c < columns; ++c) {
    const T p = row.probs[c];
    T weight = (p == 0 ? T{0} : p * factor(row.m_at[c], total.m)) * inverse;
    if (empty) weight = for_empty;
    to->weights[n * columns + c] = weight + T{0};
  }
}

// Which row n = (b H + h) L + i is.
struct Place {
  size_t batch, head, kv_head, row;
};

inline Place place_of(const Vector& v, size_t n) {
  const size_t head = n / v.q_len % v.heads;
  return {n / v.q_len / v.heads, head, head / (v.heads / v.kv_heads), n % v.q_len};
}

// 2: the keys that count of a batch item.
inline int64_t valid_keys(const Vector& v, const std::vector<MaskInput>& masks, size_t batch) {
  auto keys = static_cast<int64_t>(v.kv_len);
  for (const MaskInput& mask : masks) {
    if (mask.kind == 'l') keys = std::min(keys, static_cast<int64_t>(mask.numbers[batch]));
  }
  return keys;
}

// 2: whether a causal mask or a window leaves key j to a query that stands at key `at`.
inline bool in_band(const MaskInput& mask, int64_t at, int64_t j) {
  if (mask.kind == 'n') return j >= at - 20 && j <= at + 3;
  return mask.kind == 'm' ? j >= at - 9 : j <= at;
}

// 2
template <class T>
void apply_mask(const Vector& v, const MaskInput& mask, const Place& at, int64_t valid,
                Keys<T>* keys) {
  const int64_t last_at = valid - static_cast<int64_t>(v.q_len);
  const bool last = mask.bottom_right() || mask.kind == 'a';
  const int64_t offset = last ? last_at : mask.kind == 'o' ? 5 : 0;
  const int64_t stands_at = static_cast<int64_t>(at.row) + offset;
  const T by = static_cast<T>(mask.factor());
  for (size_t j = 0; j < v.kv_len; ++j) {
    const auto key = static_cast<int64_t>(j);
    if (mask.banded() || mask.kind == 'l') {
      keys->hidden[j] |= mask.kind == 'l' ? key >= valid : !in_band(mask, stands_at, key);
      continue;
    }
    if (mask.kind == 'a') {
      const auto slope = static_cast<T>(-mask.numbers[at.head]);
      keys->bias[j] += slope * static_cast<T>(std::abs(stands_at - key));
      continue;
    }
    const size_t row = mask.kind == 'k' ? at.batch : mask.kind == 'g' ? at.head : at.row;
    const double number = mask.numbers[mask.kind == 'w' ? row : row * v.kv_len + j];
    if (mask.added()) {
      keys->bias[j] += by * static_cast<T>(number);
    } else {
      keys->hidden[j] |= number != 0;
    }
  }
}

// The keys of row n without the appended ones, and these.
template <class T>
Keys<T> keys_of_row(const Vector& v, const Inputs<T>& in, size_t n) {
  const Place at = place_of(v, n);
  const size_t first = (at.batch * v.kv_heads + at.kv_head) * v.kv_len;
  Keys<T> keys{in.key.data() + first * v.head_dim,
               in.value.data() + first * v.v_head_dim,
               {},
               std::vector<char>(v.kv_len),
               v.kv_len,
               dropped_of(v, n, v.kv_len, 0),
               static_cast<T>(v.softcap())};
  const auto added = [](const MaskInput& mask) { return mask.added(); };
  if (std::any_of(in.masks.begin(), in.masks.end(), added)) keys.bias.assign(v.kv_len, 0);
  const int64_t valid = valid_keys(v, in.masks, at.batch);
  for (const MaskInput& mask : in.masks) apply_mask(v, mask, at, valid, &keys);
  for (size_t j = 0; j < keys.bias.size(); ++j) keys.hidden[j] |= keys.bias[j] == -kInfinity<T>;
  return keys;
}

template <class T>
Keys<T> appended_keys(const Vector& v, const Inputs<T>& in, size_t n) {
  const size_t first = place_of(v, n).kv_head * v.extra;
  return {in.extra_key.data() + first * v.head_dim,
          in.extra_value.data() + first * v.v_head_dim,
          {},
          std::vector<char>(v.extra),
          v.extra,
          dropped_of(v, n, v.extra, 0xffffffff),
          static_cast<T>(v.softcap())};
}

// 1
template <class T>
std::vector<T> scaled_query(const Vector& v, const Inputs<T>& in, size_t n) {
  std::vector<T> query(in.query.data() + n * v.head_dim, in.query.data() + (n + 1) * v.head_dim);
  for (T& q : query) q *= static_cast<T>(v.scale_number());
  return query;
}

template <class T>
const T* sink_of(const Vector& v, const Inputs<T>& in, size_t n) {
  return in.sinks.empty() ? nullptr : in.sinks.data() + place_of(v, n).head;
}

template <class T>
Outputs<T> run_attention(const Vector& v, const Inputs<T>& in) {
  const size_t rows = v.batch * v.heads * v.q_len, columns = v.kv_len + v.extra;
  Outputs<T> to;
  to.weights.resize(rows * columns);
  for (size_t n = 0; n < rows; ++n) {
    Row<T> row{scaled_query(v, in, n), std::vector<T>(columns), std::vector<T>(columns)};
    const State<T> total = run_row(keys_of_row(v, in, n), appended_keys(v, in, n),
                                   sink_of(v, in, n), v.v_head_dim, &row);
    finish_row(v, total, row, n, &to);
  }
  return to;
}

// 10: [B, H, L, columns] -> [B, L, columns]
template <class T>
std::vector<T> average_heads(const Vector& v, const std::vector<T>& weights) {
  const size_t head = v.q_len * (v.kv_len + v.extra);
  std::vector<T> mean;
  for (size_t n = 0; n < v.batch * head; ++n) {
    const T* first = weights.data() + n / head * v.heads * head + n % head;
    T sum = first[0];
    for (size_t h = 1; h < v.heads; ++h) sum += first[h * head];
    mean.push_back(sum / static_cast<T>(v.heads));
  }
  return mean;
}

}  // namespace canonical
