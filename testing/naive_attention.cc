#include "testing/naive_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "attention/attention_reference.h"
#include "attention/score_mod.h"
#include "testing/elements.h"

namespace polyhead::oracle {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

float at(const ConstTensorView& view, Index index) {
  return view.data_as<float>()[offset_of(view, index)];
}

// A key or value element; columns from kv_len on are the appended ones.
float column_at(const ConstTensorView& tensor, const ConstTensorView& extra, const Index& index) {
  if (index[2] < tensor.size(2)) return at(tensor, index);
  return at(extra, {index[1], index[2] - tensor.size(2), index[3]});
}

}  // namespace

Tensor naive_attention(const AttentionCall& call) {
  const int64_t columns = call.kv_len() + call.num_extra();
  const auto scale = static_cast<float>(call.scale);
  Tensor out(DType::kFloat32, {call.batch(), call.num_heads(), call.q_len(), call.v_head_dim()});
  const int64_t rows[] = {call.batch(), call.num_heads(), call.q_len()};
  std::vector<float> probs(static_cast<size_t>(columns));
  for_each_index(rows, [&](const Index& row) {
    const int64_t b = row[0], h = row[1], i = row[2], kv_head = call.kv_head(h);
    float max = -kInf, sum = 0;
    for (int64_t j = 0; j < columns; ++j) {
      float score = 0;
      for (int64_t d = 0; d < call.head_dim(); ++d) {
        score +=
            at(call.query, {b, h, i, d}) * column_at(call.key, call.extra_key, {b, kv_head, j, d});
      }
      const double bias = j < call.kv_len() ? attention_bias_reference(call, b, h, i, j) : 0;
      score *= scale;
      const auto cap = static_cast<float>(call.softcap);
      if (cap > 0) score = cap * std::tanh(score / cap);
      if (call.score_mod.forward != nullptr && j < call.kv_len()) {
        score = static_cast<float>(modified_score(call, {b, h, i, j}, static_cast<double>(score)));
      }
      probs[static_cast<size_t>(j)] = score + static_cast<float>(bias);
      max = std::max(max, probs[static_cast<size_t>(j)]);
    }
    const float sink = call.sinks.defined() ? at(call.sinks, {h}) : -kInf;
    max = std::max(max, sink);
    for (float& p : probs) {
      p = p == -kInf ? 0 : std::exp(p - max);
      sum += p;
    }
    if (sink != -kInf) sum += std::exp(sink - max);
    for (int64_t j = 0; j < columns; ++j) {
      probs[static_cast<size_t>(j)] *= static_cast<float>(call.kept(b, h, i, j));
    }
    for (int64_t d = 0; d < call.v_head_dim(); ++d) {
      float total = 0;
      for (int64_t j = 0; j < columns; ++j) {
        const float p = probs[static_cast<size_t>(j)];
        if (p > 0) total += p * column_at(call.value, call.extra_value, {b, kv_head, j, d});
      }
      write(out, {b, h, i, d}, sum > 0 ? total / sum : 0);
    }
  });
  return out;
}

}  // namespace polyhead::oracle
