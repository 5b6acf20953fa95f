// The test vectors of docs/canonical_order.md: the table, the inputs by formula, and the digest of
// an output. Nothing of the library is used here, so that both programs can share it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "sha256.h"

namespace canonical {

// One line of vectors.txt. For op "linear": [q_len, head_dim] -> [q_len, v_head_dim], and the
// gradients for d_y = out: d_x in the place of lse, d_weight and d_bias in that of the weights. For
// "backward": d_query, then d_key with that of the appended columns, then d_value with that and
// those of the masks. For "heads": x [batch, heads, q_len, head_dim] at positions from kv_len on,
// with a norm if extra is 1, v_head_dim numbers of a head turned, neighbours if there is a mask i,
// by frequencies of which each is the one before / scale; y, d_x and d_weight.
struct Vector {
  std::string op, name, dtype;
  size_t batch, heads, kv_heads, q_len, kv_len, extra, head_dim, v_head_dim;
  std::string scale, regime, masks, empty, weights, dropout;
  std::string out_sha, lse_sha, weights_sha;

  double scale_number() const {
    return scale == "-" ? 1 / std::sqrt(static_cast<double>(head_dim)) : std::stod(scale);
  }
  uint64_t rope_ratio() const { return std::stoull(scale); }
  bool has(char letter) const { return masks.find(letter) != std::string::npos; }
  double softcap() const { return has('p') ? 5 : 0; }
  double dropout_p() const { return dropout == "-" ? 0 : std::stod(dropout); }
};

constexpr uint64_t kDropoutSeed = uint64_t{0x01234567} << 32 | 0x89abcdef;
constexpr uint32_t kDropoutCall = 7;
constexpr double kHeadsEpsilon = 0x1p-17;

inline std::vector<Vector> read_vectors(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path + ": cannot be opened");
  std::vector<Vector> table;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line[0] == '#') continue;
    std::istringstream words(line);
    Vector v;
    words >> v.op >> v.name >> v.dtype >> v.batch >> v.heads >> v.kv_heads >> v.q_len >> v.kv_len >>
        v.extra >> v.head_dim >> v.v_head_dim >> v.scale >> v.regime >> v.masks >> v.empty >>
        v.weights >> v.dropout >> v.out_sha >> v.lse_sha >> v.weights_sha;
    if (!words) throw std::runtime_error(path + ": not 20 words: " + line);
    table.push_back(v);
  }
  return table;
}

inline uint32_t hash(uint32_t seed, uint64_t n) {
  uint32_t x = static_cast<uint32_t>(n) * 0x9E3779B1U + seed * 0x85EBCA6BU;
  x = (x ^ x >> 16) * 0x7FEB352DU;
  x = (x ^ x >> 15) * 0x846CA68BU;
  return x ^ x >> 16;
}

// In [-1, 1), exact: 24 bits, or 53.
template <class T>
T uniform(uint32_t seed, uint64_t n) {
  if constexpr (sizeof(T) == 4) {
    return static_cast<float>(hash(seed, n) >> 8) * 0x1p-23F - 1;
  } else {
    const uint64_t k = uint64_t{hash(seed, 2 * n)} << 21 | hash(seed, 2 * n + 1) >> 11;
    return static_cast<double>(k) * 0x1p-52 - 1;
  }
}

template <class T>
std::vector<T> uniforms(uint32_t seed, size_t count, T gain) {
  std::vector<T> numbers(count);
  for (size_t n = 0; n < count; ++n) numbers[n] = gain * uniform<T>(seed, n);
  return numbers;
}

// One mask: t, r, o causal (top left, bottom right, offset 5); n, m windows; l key lengths [B]; b,
// c boolean [L, S]; k padding [B, S]; f, d, i added, [L, S] of float32, float64 and int32; g, w
// added, float32 [H, 1, S] and [L, 1]; a ALiBi, slopes [H]. The numbers of b, c and k are 1 where a
// pair is hidden.
struct MaskInput {
  char kind;
  std::vector<double> numbers;
  bool differentiable() const { return kind == 'f' || kind == 'd' || kind == 'g' || kind == 'w'; }
  bool added() const { return differentiable() || kind == 'i' || kind == 'a'; }
  bool banded() const { return kind == 't' || kind == 'r' || kind == 'o' || windowed(); }
  bool windowed() const { return kind == 'n' || kind == 'm'; }
  bool bottom_right() const { return kind == 'r' || kind == 'm'; }
  double factor() const { return kind == 'f' ? 0.3 : kind == 'i' ? 0.7 : kind == 'g' ? -0.5 : 1; }
};

// Element n of the mask, at (row, j): the query, or for k the batch item and for g the head, and
// the key; w has one for all keys.
inline double mask_number(const Vector& v, char kind, uint32_t seed, size_t row, size_t j) {
  const uint64_t n = kind == 'w' ? row : row * v.kv_len + j;
  switch (kind) {
    case 'b':
      return row == 1 || hash(seed, n) % 3 == 0;
    case 'c':
      return (row % 2 == 1) == (j < 1024);
    case 'k':
      return j + 3 + 5 * row >= v.kv_len;
    case 'l':
      return static_cast<double>(v.kv_len - std::min(v.kv_len, 3 + 5 * row));
    case 'f':
      if (hash(seed + 100, n) % 5 == 0) return -std::numeric_limits<double>::infinity();
      return static_cast<double>(4 * uniform<float>(seed, n));
    case 'a':
      return 0.25 * static_cast<double>(row + 1);
    case 'g':
    case 'w':
      return static_cast<double>(4 * uniform<float>(seed, n));
    case 'd':
      return 4 * uniform<double>(seed, n);
    default:
      return static_cast<double>(hash(seed, n) % 7) - 3;
  }
}

inline size_t mask_rows(const Vector& v, char kind) {
  if (kind == 'g' || kind == 'a') return v.heads;
  return kind == 'k' || kind == 'l' ? v.batch : v.q_len;
}

inline std::vector<MaskInput> make_masks(const Vector& v) {
  std::vector<MaskInput> masks;
  if (v.masks == "-") return masks;
  for (const char kind : v.masks) {
    if (kind == 'p' || kind == 's') continue;  // not masks; they come last
    MaskInput mask{kind, {}};
    const auto seed = static_cast<uint32_t>(6 + masks.size());
    const size_t rows = mask.banded() ? 0 : mask_rows(v, kind);
    const size_t columns = kind == 'w' || kind == 'l' || kind == 'a' ? 1 : v.kv_len;
    for (size_t row = 0; row < rows; ++row) {
      for (size_t j = 0; j < columns; ++j) {
        mask.numbers.push_back(mask_number(v, kind, seed, row, j));
      }
    }
    masks.push_back(mask);
  }
  return masks;
}

template <class T>
struct Inputs {
  std::vector<T> query;                   // [B, H, L, D]; op linear: x [L, D]
  std::vector<T> key;                     // [B, Hkv, S, D]; op linear: weight [Dv, D]; heads: d_y
  std::vector<T> value;                   // [B, Hkv, S, Dv]; op linear: bias [Dv]; heads: weight
  std::vector<T> extra_key, extra_value;  // [Hkv, X, D], [Hkv, X, Dv]
  std::vector<T> sinks;                   // [H], or empty
  std::vector<MaskInput> masks;
};

// First components that make the scores rise or fall with the key's index.
template <class T>
void tilt(const Vector& v, T slope, Inputs<T>* in) {
  for (size_t n = 0; n < in->query.size(); n += v.head_dim) in->query[n] = 16;
  for (size_t n = 0; n < in->key.size(); n += v.head_dim) {
    in->key[n] = static_cast<T>(n / v.head_dim % v.kv_len) * slope;
  }
}

// NaN in the last three keys and values of each head.
template <class T>
void poison(size_t kv_len, size_t width, std::vector<T>* rows) {
  for (size_t n = 0; n < rows->size(); ++n) {
    if (n / width % kv_len + 3 >= kv_len) (*rows)[n] = std::numeric_limits<T>::quiet_NaN();
  }
}

template <class T>
Inputs<T> make_inputs(const Vector& v) {
  Inputs<T> in;
  const T gain = v.regime == "peaked" ? T{64} : T{2};
  if (v.op == "linear") {
    in.query = uniforms<T>(1, v.q_len * v.head_dim, gain);
    in.key = uniforms<T>(2, v.v_head_dim * v.head_dim, 1);
    in.value = uniforms<T>(3, v.v_head_dim, 1);
    return in;
  }
  if (v.op == "heads") {
    const size_t count = v.batch * v.heads * v.q_len * v.head_dim;
    in.query = uniforms<T>(1, count, gain);
    in.key = uniforms<T>(50, count, 1);
    in.value = uniforms<T>(2, v.head_dim, 1);
    return in;
  }
  const size_t kv_rows = v.batch * v.kv_heads * v.kv_len, extra_rows = v.kv_heads * v.extra;
  in.query = uniforms<T>(1, v.batch * v.heads * v.q_len * v.head_dim, gain);
  in.key = uniforms<T>(2, kv_rows * v.head_dim, 1);
  in.value = uniforms<T>(3, kv_rows * v.v_head_dim, 1);
  in.extra_key = uniforms<T>(4, extra_rows * v.head_dim, 1);
  in.extra_value = uniforms<T>(5, extra_rows * v.v_head_dim, 1);
  if (v.has('s')) in.sinks = uniforms<T>(60, v.heads, 4);
  in.masks = make_masks(v);
  if (v.regime == "rising") tilt(v, T{0.125}, &in);
  if (v.regime == "falling") tilt(v, T{-0.125}, &in);
  if (v.regime == "poisoned") {
    poison(v.kv_len, v.head_dim, &in.key);
    poison(v.kv_len, v.v_head_dim, &in.value);
  }
  return in;
}

// The derivatives of a loss with respect to what the forward gives; op "backward".
template <class T>
struct Cotangents {
  std::vector<T> d_out;      // [B, H, L, Dv]
  std::vector<T> d_weights;  // [B, H, L, S + X], its mean [B, L, S + X], or empty
};

template <class T>
Cotangents<T> make_cotangents(const Vector& v) {
  const size_t rows = v.batch * v.heads * v.q_len, columns = v.kv_len + v.extra;
  Cotangents<T> result{uniforms<T>(50, rows * v.v_head_dim, 1), {}};
  if (v.weights == "heads") result.d_weights = uniforms<T>(51, rows * columns, 1);
  if (v.weights == "mean") result.d_weights = uniforms<T>(51, rows / v.heads * columns, 1);
  return result;
}

// SHA-256 of the numbers, row-major, little-endian; every NaN as the quiet one without payload.
template <class T>
std::string digest(const T* numbers, size_t count) {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  std::vector<uint8_t> bytes;
  bytes.reserve(count * sizeof(T));
  for (size_t n = 0; n < count; ++n) {
    const bool nan = numbers[n] != numbers[n];
    Bits bits = sizeof(T) == 4 ? static_cast<Bits>(0x7fc00000U)
                               : static_cast<Bits>(uint64_t{0x7ff80000U} << 32);
    if (!nan) std::memcpy(&bits, numbers + n, sizeof bits);
    for (size_t b = 0; b < sizeof(T); ++b) bytes.push_back(static_cast<uint8_t>(bits >> (8 * b)));
  }
  return sha256(bytes);
}

struct Digests {
  std::string out = "-", lse = "-", weights = "-";
};

}  // namespace canonical
