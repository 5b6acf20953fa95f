#include "explain_part.h"

#include <algorithm>

#include "base/message.h"
#include "errors.h"
#include "trace.h"

namespace polyhead::cli {

double numbers_held(const PageWidths& w, const PageCounts& n) {
  const auto real = [](int64_t x) { return static_cast<double>(x); };
  const double all_heads = real(w.heads) * real(w.head_dim);
  const double held_heads = real(n.heads) * real(w.head_dim);
  const double columns = real(n.keys) + real(w.extra);
  return real(n.queries) * (3 * real(w.embed_dim) + held_heads + all_heads) +
         real(n.keys) * (real(w.kdim) + real(w.vdim)) + columns * 2 * held_heads +
         real(w.pairs) * real(n.heads) * real(n.queries) * columns;
}

// Heads go last: a head more says more than a query more.
PageCounts counts_that_fit(const PageWidths& widths, const PageCounts& all, double most) {
  PageCounts counts = all;
  constexpr int64_t kFewPositions = 48;
  while (numbers_held(widths, counts) > most) {
    int64_t& longer = counts.queries > counts.keys ? counts.queries : counts.keys;
    int64_t& shrinks = longer <= kFewPositions && counts.heads > 1 ? counts.heads : longer;
    if (shrinks <= 1) break;
    shrinks -= std::max<int64_t>(1, shrinks / 8);
  }
  return counts;
}

PageWidths page_widths(const Job& job) {
  const auto features = [&](const ConstTensorView& view) { return view.size(view.rank() - 1); };
  PageWidths widths;
  widths.embed_dim = features(job.query());
  widths.kdim = features(job.key());
  if (!job.arguments().value.empty()) widths.vdim = features(job.value());
  if (masks_given(job.arguments())) widths.pairs = 5;
  widths.heads = job.num_heads();
  widths.head_dim = job.head_dim();
  if (job.mha()) {
    widths.extra = job.mha()->config().add_bias_kv + job.mha()->config().add_zero_attn;
  }
  return widths;
}

void check_explain_page_size(const Job& job) {
  if (job.arguments().report.empty()) return;
  for (const ConstTensorView& input : {job.query().view(), job.key().view(), job.value().view()}) {
    if (input.rank() == 0) return;  // the computation says what is wrong
  }
  const double least = numbers_held(page_widths(job), {});
  if (least <= kMostPageNumbers) return;
  throw FileError(message("--report: one query and one key take ", static_cast<int64_t>(least),
                          " numbers; a page holds at most ", kMostPageNumbers));
}

}  // namespace polyhead::cli
