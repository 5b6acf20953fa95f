#include "bench/ladder/rungs.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace polyhead::ladder {
namespace {

float dot(const float* a, const float* b, size_t n) {
  float sum = 0;
  for (size_t d = 0; d < n; ++d) sum += a[d] * b[d];
  return sum;
}

// to += factor * row
void add_scaled(float factor, const float* row, size_t n, float* to) {
  for (size_t d = 0; d < n; ++d) to[d] += factor * row[d];
}

}  // namespace

void plain_loops(const OneHead& head) {
  const float scale = 1 / std::sqrt(static_cast<float>(head.head_dim));
  std::vector<float> scores(head.len);
  for (size_t i = 0; i < head.len; ++i) {
    float* out = head.out + i * head.head_dim;
    for (size_t j = 0; j < head.len; ++j) {
      scores[j] =
          scale * dot(head.query + i * head.head_dim, head.key + j * head.head_dim, head.head_dim);
    }
    const float top = *std::max_element(scores.begin(), scores.end());
    float sum = 0;
    std::fill_n(out, head.head_dim, 0.0F);
    for (size_t j = 0; j < head.len; ++j) {
      const float p = std::exp(scores[j] - top);
      sum += p;
      add_scaled(p, head.value + j * head.head_dim, head.head_dim, out);
    }
    for (size_t d = 0; d < head.head_dim; ++d) out[d] /= sum;
  }
}

void streamed(const OneHead& head) {
  constexpr size_t kBlock = 64;
  const float scale = 1 / std::sqrt(static_cast<float>(head.head_dim));
  for (size_t i = 0; i < head.len; ++i) {
    float* out = head.out + i * head.head_dim;
    std::fill_n(out, head.head_dim, 0.0F);
    float top = -std::numeric_limits<float>::infinity(), sum = 0;
    for (size_t first = 0; first < head.len; first += kBlock) {
      const size_t keys = std::min(kBlock, head.len - first);
      float scores[kBlock];
      float next = top;
      for (size_t n = 0; n < keys; ++n) {
        scores[n] = scale * dot(head.query + i * head.head_dim,
                                head.key + (first + n) * head.head_dim, head.head_dim);
        next = std::max(next, scores[n]);
      }
      const float factor = std::exp(top - next);
      top = next;
      sum *= factor;
      for (size_t d = 0; d < head.head_dim; ++d) out[d] *= factor;
      for (size_t n = 0; n < keys; ++n) {
        const float p = std::exp(scores[n] - top);
        sum += p;
        add_scaled(p, head.value + (first + n) * head.head_dim, head.head_dim, out);
      }
    }
    for (size_t d = 0; d < head.head_dim; ++d) out[d] /= sum;
  }
}

}  // namespace polyhead::ladder
