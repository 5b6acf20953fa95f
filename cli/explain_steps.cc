#include "explain_steps.h"

#include "text.h"

namespace polyhead::cli {
namespace {

constexpr const char* kModule = "src/module/module_reference.cc";
constexpr const char* kScale = "src/module/projected_attention.cc";
constexpr const char* kOp = "src/attention/attention_reference.cc";

struct Quote {
  const char *file, *code;
};

struct Known {
  const char* title;
  const char* python;
  Quote cpp[4];  // null where there are fewer
};

// In the order of Step. tests: explain_steps_test.cc looks for each line in its file.
constexpr Known kKnown[kSteps] = {
    {"Project",
     "q = self.q_linear(q)",
     {{kModule, "q_ = linear(as_double(inputs_.query), {}, p.q_weight, p.q_bias, u_);"},
      {kModule, "k_ = linear(as_double(inputs_.key), {}, p.k_weight, p.k_bias, u_);"},
      {kModule, "v_ = linear(as_double(inputs_.value), {}, p.v_weight, p.v_bias, u_);"},
      {kModule, "sum += from[row + i] * w;"}}},
    {"Split into heads",
     "q = q.view(N, q_len, self.num_heads, self.head_dim).transpose(1, 2)",
     {{kModule, "const int64_t shape[] = {batch, width / head_dim, len, head_dim};"},
      {kModule, "const int64_t strides[] = {len * width, head_dim, width, 1};"}}},
    {"Scores",
     "torch.matmul(q, k.transpose(-2, -1))",
     {{kOp, "const double product = at(call_.query, b_, h_, i_, d) * key(j, d);"},
      {kOp, "dot += product;"}}},
    {"Scale",
     "/ self.head_dim**0.5",
     {{kScale, "return 1 / std::sqrt(static_cast<double>(sizes.head_dim));"},
      {kModule, "to[n] = attention_scale(sizes_) * dot;"}}},
    {"Mask",
     "scaled_attention += (mask * -1e5)",
     {{kOp, "scores_[n] = modified + bias;"}, {kOp, "if (bias == -kInf) {"}}},
    {"Softmax",
     "attention = torch.softmax(scaled_attention, dim=-1)",
     {{kOp, "if (score != -kInf) sum_ += std::exp(score - max_);"},
      {kOp, "probs_[n] = masked ? empty_value() : std::exp(scores_[n] - max_) / sum_;"}}},
    {"Weighted sum", "out = torch.matmul(attention, v)", {{kOp, "*out += prob(j) * value(j, d);"}}},
    {"Concatenate",
     "out = out.transpose(1, 2).contiguous().view(N, q_len, self.embed_size)",
     {{kModule, "std::copy_n(by_head.data_as<double>() + n * dim, dim,"},
      {kModule, "joined.data_as<double>() + (b * q_len() + i) * sizes_.width() + h * dim);"}}},
    {"Project the output",
     "out = self.fc_out(out)",
     {{kModule,
       "linear(result_.heads, heads_budget_, parameters_.out_weight, parameters_.out_bias, "
       "u_);"}}}};

const Known& known(Step step) { return kKnown[static_cast<size_t>(step)]; }

}  // namespace

const char* step_title(Step step) { return known(step).title; }

std::string python_line(Step step, bool full_width) {
  if (step == Step::kConcatenate && full_width) {
    return "out = out.transpose(1, 2).contiguous().view(N, q_len, E * num_heads)";
  }
  return known(step).python;
}

std::string python_projection(const std::string& letter) {
  return replaced(known(Step::kProject).python, "q", letter);
}

std::vector<CodeLine> cpp_lines(Step step) {
  std::vector<CodeLine> lines;
  for (const Quote& quote : known(step).cpp) {
    if (quote.file != nullptr) lines.push_back({quote.file, quote.code});
  }
  return lines;
}

}  // namespace polyhead::cli
