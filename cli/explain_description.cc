#include "explain_description.h"

#include <string>

#include "base/message.h"
#include "explain_steps.h"

namespace polyhead::cli {
namespace {

void describe_steps(const Job& job, ExplainPage& page) {
  const bool full = job.scratch() && job.scratch()->head_width() == HeadWidth::kFull;
  for (size_t n = 0; n < kSteps; ++n) {
    const auto step = static_cast<Step>(n);
    // nn.MultiheadAttention masks in ways that the from-scratch class does not have.
    const bool other = step == Step::kMask && !job.scratch();
    page.steps.push_back({.python = other ? "" : python_line(step, full), .cpp = cpp_lines(step)});
  }
  for (const char* letter : {"k", "v"}) {
    page.steps[0].python += message("\n", python_projection(letter));
  }
}

std::string causal_text(const Trace& trace) {
  const int64_t offset = trace.from_end ? trace.key.size(0) - trace.q_len : 0;
  return message("--causal: query i sees key j if j <= i", offset > 0   ? message(" + ", offset)
                                                           : offset < 0 ? message(" - ", -offset)
                                                                        : "");
}

void describe_masks(const Job& job, const Trace& trace, ExplainPage& page) {
  const ModuleArguments& a = job.arguments();
  const ForwardOptions options = job.options(WeightsMode::kNone);
  const auto add = [&](const char* flag, const std::string& path, const ConstTensorView& mask) {
    if (!mask.defined()) return;
    const bool hides = mask.dtype() == DType::kBool && !job.scratch();
    page.masks.push_back(message(flag, " ", path, ", ", dtype_name(mask.dtype()), " ",
                                 mask.shape_string(), ": ",
                                 job.scratch() ? "times -1e5, added"
                                 : hides       ? "true hides a key"
                                               : "added"));
  };
  add("--attn-mask", a.attn_mask, options.attn_mask);
  add("--key-padding-mask", a.key_padding_mask, options.key_padding_mask);
  if (!a.scratch_mask.empty()) add("--scratch-mask", a.scratch_mask, job.scratch_mask());
  if (a.causal) page.masks.push_back(causal_text(trace));
}

}  // namespace

void describe(const Job& job, const Trace& trace, ExplainPage& page) {
  page.head_dim = trace.head_dim;
  if (trace.has_bias_kv) page.extra_columns.push_back("bias_k");
  if (job.arguments().add_zero_attn) page.extra_columns.push_back("zero");
  page.in_bias = trace.has_in_bias;
  page.out_bias = trace.has_out_bias;
  page.soft_masks = job.scratch() != nullptr;
  page.nan_rows = job.arguments().empty_rows == EmptyRow::kNan;
  describe_steps(job, page);
  describe_masks(job, trace, page);
}

}  // namespace polyhead::cli
