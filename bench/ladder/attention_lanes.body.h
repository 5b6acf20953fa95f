// Rung v3, once per instruction set: lanes are queries.
//
// Idea: a vector holds one number of as many queries as it has lanes, so that keys and values need
// no packing and softmax no sum across lanes. A tile of kKeyTile keys x 3 vectors of queries stays
// in registers for the whole dot product; the running maximum is in log2 units, and the output is
// rescaled for every 64 keys whether the maximum moved or not.
// Result: README.md. Dropped for what v4 does about it: one row's maximum rescales, and so rounds,
// differently from tile to tile; any head_dim, masks and strides are missing.
// Here: no masks, head_dim and len multiples of 8.

inline constexpr size_t kBlock = 64;  // keys
inline constexpr size_t kWidth = 3 * kLanes<float>;

struct LanesScratch {
  float query[128 * kWidth];     // [D, W], times scale and log2(e)
  float out[128 * kWidth];       // [D, W]
  float probs[kBlock * kWidth];  // [64, W]
};

// acc[j][i] = sum over d of row[j][d] * query[d][i]
POLYHEAD_INLINE void lanes_dot(const LanesScratch& scratch, const float* rows, size_t head_dim,
                               Vec<float> (&acc)[kKeyTile][3]) {
  const float* query = scratch.query;
  for (size_t d = 0; d < head_dim; ++d, query += kWidth) {
    const Vec<float> q0 = load(query), q1 = load(query + kLanes<float>),
                     q2 = load(query + 2 * kLanes<float>);
#pragma GCC unroll 8
    for (size_t j = 0; j < kKeyTile; ++j) {
      const Vec<float> k = broadcast(rows + j * head_dim + d);
      acc[j][0] = fma(k, q0, acc[j][0]);
      acc[j][1] = fma(k, q1, acc[j][1]);
      acc[j][2] = fma(k, q2, acc[j][2]);
    }
  }
}

// scores of `keys` keys into probs, and their maximum joined to `highest`.
POLYHEAD_INLINE void lanes_scores(LanesScratch& scratch, const float* key, size_t keys,
                                  size_t head_dim, Vec<float> (&highest)[3]) {
  for (size_t first = 0; first < keys; first += kKeyTile) {
    Vec<float> acc[kKeyTile][3] = {};
    lanes_dot(scratch, key + first * head_dim, head_dim, acc);
#pragma GCC unroll 8
    for (size_t j = 0; j < kKeyTile; ++j) {
#pragma GCC unroll 3
      for (size_t i = 0; i < 3; ++i) {
        highest[i] = maximum(highest[i], acc[j][i]);
        store(scratch.probs + (first + j) * kWidth + i * kLanes<float>, acc[j][i]);
      }
    }
  }
}

// out[d] = factor * out[d] + sum over keys of probs * value[key][d]
POLYHEAD_INLINE void lanes_values(LanesScratch& scratch, const float* value, size_t keys,
                                  size_t head_dim, const Vec<float> (&factor)[3]) {
  for (size_t d = 0; d < head_dim; d += kKeyTile) {
    Vec<float> acc[kKeyTile][3];
#pragma GCC unroll 8
    for (size_t j = 0; j < kKeyTile; ++j) {
#pragma GCC unroll 3
      for (size_t i = 0; i < 3; ++i) {
        acc[j][i] = factor[i] * load(scratch.out + (d + j) * kWidth + i * kLanes<float>);
      }
    }
    const float* probs = scratch.probs;
    for (size_t n = 0; n < keys; ++n, probs += kWidth) {
      const Vec<float> p0 = load(probs), p1 = load(probs + kLanes<float>),
                       p2 = load(probs + 2 * kLanes<float>);
#pragma GCC unroll 8
      for (size_t j = 0; j < kKeyTile; ++j) {
        const Vec<float> v = broadcast(value + n * head_dim + d + j);
        acc[j][0] = fma(v, p0, acc[j][0]);
        acc[j][1] = fma(v, p1, acc[j][1]);
        acc[j][2] = fma(v, p2, acc[j][2]);
      }
    }
#pragma GCC unroll 8
    for (size_t j = 0; j < kKeyTile; ++j) {
#pragma GCC unroll 3
      for (size_t i = 0; i < 3; ++i) {
        store(scratch.out + (d + j) * kWidth + i * kLanes<float>, acc[j][i]);
      }
    }
  }
}

// scratch.query -> scratch.out, not yet divided; l goes to `sum`.
inline void lanes_fold(LanesScratch& scratch, const OneHead& head, float* sum) {
  Vec<float> top[3], total[3] = {};
  for (Vec<float>& m : top) m = splat(-std::numeric_limits<float>::infinity());
  __builtin_memset(scratch.out, 0, sizeof scratch.out);
  for (size_t first = 0; first < head.len; first += kBlock) {
    const size_t keys = head.len - first < kBlock ? head.len - first : kBlock;
    Vec<float> next[3] = {top[0], top[1], top[2]}, factor[3];
    lanes_scores(scratch, head.key + first * head.head_dim, keys, head.head_dim, next);
    for (size_t i = 0; i < 3; ++i) {
      factor[i] = exp2_flushed(top[i] - next[i]);
      top[i] = next[i];
      total[i] *= factor[i];
      for (size_t n = 0; n < keys; ++n) {
        float* at = scratch.probs + n * kWidth + i * kLanes<float>;
        const Vec<float> p = exp2_flushed(load(at) - top[i]);
        total[i] += p;
        store(at, p);
      }
    }
    lanes_values(scratch, head.value + first * head.head_dim, keys, head.head_dim, factor);
  }
  for (size_t i = 0; i < 3; ++i) store(sum + i * kLanes<float>, total[i]);
}

inline void lanes_head(const OneHead& head) {
  alignas(64) static thread_local LanesScratch scratch;
  const float scale = 1.44269504F / std::sqrt(static_cast<float>(head.head_dim));
  for (size_t row = 0; row < head.len; row += kWidth) {
    const size_t rows = head.len - row < kWidth ? head.len - row : kWidth;
    for (size_t r = 0; r < kWidth; ++r) {
      for (size_t d = 0; d < head.head_dim; ++d) {
        scratch.query[d * kWidth + r] =
            r < rows ? head.query[(row + r) * head.head_dim + d] * scale : 0;
      }
    }
    alignas(64) float sum[kWidth];
    lanes_fold(scratch, head, sum);
    for (size_t r = 0; r < rows; ++r) {
      for (size_t d = 0; d < head.head_dim; ++d) {
        head.out[(row + r) * head.head_dim + d] = scratch.out[d * kWidth + r] / sum[r];
      }
    }
  }
}
