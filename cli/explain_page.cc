#include "explain_page.h"

#include <cmath>
#include <utility>

#include "base/message.h"
#include "explain_description.h"
#include "explain_parameters.h"
#include "explain_part.h"

namespace polyhead::cli {
namespace {

// Rows [first, first + count) of a row-major matrix, and of those columns [0, columns).
std::vector<double> part_of(const Matrix& matrix, int64_t first, int64_t count, int64_t columns) {
  std::vector<double> part;
  for (int64_t row = first; row < first + count; ++row) {
    const auto from = matrix.numbers.begin() + row * matrix.columns;
    part.insert(part.end(), from, from + columns);
  }
  return part;
}

class PageBuilder {
 public:
  PageBuilder(const Job& job, const Job::Result& result, const Trace& trace)
      : job_(job), result_(result), trace_(trace), widths_(page_widths(job)) {}

  void fill(ExplainPage& page) {
    page_ = &page;
    choose_part();
    describe(job_, trace_, page);
    add_inputs();
    for (const auto& [name, operand] :
         {std::pair{"q", Operand::kQuery}, {"k", Operand::kKey}, {"v", Operand::kValue}}) {
      add_projected(name, operand);
    }
    add_pairs();
    add_results();
    if (!with_parameters_) return;
    for (ExplainMatrix& matrix : explain_parameters(job_)) {
      page.matrices.push_back(std::move(matrix));
    }
  }

 private:
  PageCounts counts() const {
    return {page_->heads.count, page_->queries.count, page_->keys.count};
  }
  int64_t kv_len() const { return trace_.key.size(0); }

  // Positions at the end of a causal triangle that is aligned there.
  void choose_part() {
    const double parameters = static_cast<double>(parameter_count(job_));
    with_parameters_ = 2 * parameters <= kMostPageNumbers;
    const PageCounts all = {trace_.num_heads, trace_.rows, kv_len()};
    const PageCounts part =
        counts_that_fit(widths_, all, kMostPageNumbers - (with_parameters_ ? parameters : 0));
    const bool from_end = trace_.from_end;
    first_row_ = from_end ? trace_.rows - part.queries : 0;
    page_->queries = {trace_.first_row + first_row_, part.queries, trace_.q_len};
    page_->keys = {from_end ? kv_len() - part.keys : 0, part.keys, kv_len()};
    page_->heads = {0, part.heads, trace_.num_heads};
  }

  void add(const std::string& name, std::vector<int64_t> shape, std::vector<double> numbers) {
    page_->matrices.push_back({name, std::move(shape), std::move(numbers)});
  }
  void add_rows(const std::string& name, const Matrix& matrix, int64_t first, int64_t count) {
    add(name, {count, matrix.columns}, part_of(matrix, first, count, matrix.columns));
  }

  void add_inputs() {
    add_rows("query", matrix_of(trace_.query), first_row_, counts().queries);
    add_rows("key", matrix_of(trace_.key), page_->keys.first, counts().keys);
    if (job_.arguments().value.empty()) return;
    add_rows("value", matrix_of(trace_.value), page_->keys.first, counts().keys);
  }

  // [len, held heads * head_dim], and [held heads, extra, head_dim] beside it.
  void add_projected(const std::string& letter, Operand operand) {
    const bool is_query = operand == Operand::kQuery;
    const int64_t width = counts().heads * trace_.head_dim;
    const int64_t first = is_query ? first_row_ : page_->keys.first;
    const int64_t count = is_query ? counts().queries : counts().keys;
    std::vector<double> held(static_cast<size_t>(count * width));
    for (int64_t head = 0; head < counts().heads; ++head) {
      const Matrix rows = head_operand(trace_, operand, head);
      for (int64_t n = 0; n < count * trace_.head_dim; ++n) {
        const int64_t row = n / trace_.head_dim, d = n % trace_.head_dim;
        held[static_cast<size_t>(row * width + head * trace_.head_dim + d)] =
            rows.at(first + row, d);
      }
    }
    add(letter, {count, width}, std::move(held));
    if (is_query || widths_.extra == 0) return;
    std::vector<double> extra;
    for (int64_t head = 0; head < counts().heads; ++head) {
      const Matrix rows = head_operand(trace_, operand, head);  // [kv_len + extra, head_dim]
      extra.insert(extra.end(), rows.numbers.end() - widths_.extra * trace_.head_dim,
                   rows.numbers.end());
    }
    add(message("extra_", letter), {counts().heads, widths_.extra, trace_.head_dim},
        std::move(extra));
  }

  // The page's rows of a head's pairs, its keys and the appended columns.
  void append_pairs(const Matrix& pairs, std::vector<double>& to) const {
    for (int64_t row = first_row_; row < first_row_ + counts().queries; ++row) {
      const auto from = pairs.numbers.begin() + row * pairs.columns;
      to.insert(to.end(), from + page_->keys.first, from + page_->keys.first + page_->keys.count);
      to.insert(to.end(), from + kv_len(), from + pairs.columns);
    }
  }

  void add_per_pair(const std::string& name, Matrix (*of_head)(const Trace&, int64_t),
                    int64_t heads) {
    std::vector<double> numbers;  // [heads, queries, keys + extra]
    for (int64_t head = 0; head < heads; ++head) append_pairs(of_head(trace_, head), numbers);
    add(name, {heads, counts().queries, counts().keys + widths_.extra}, std::move(numbers));
  }

  void add_pairs() {
    const int64_t heads = counts().heads;
    add_per_pair("scores", head_unscaled, heads);
    add_per_pair("scaled", head_scores, heads);
    if (trace_.has_masks) {
      add_per_pair("mask", head_bias, one_mask_for_all() ? 1 : heads);
      add_per_pair("masked", head_masked, heads);
      add_per_query("seen", head_masked, [](const Matrix& masked, int64_t row) {
        double count = 0;
        for (int64_t j = 0; j < masked.columns; ++j) count += masked.at(row, j) != -INFINITY;
        return count;
      });
    }
    add_per_pair("weights", head_weights, heads);
    if (counts().keys == kv_len()) return;
    add_per_query("left_out", head_weights, [this](const Matrix& weights, int64_t row) {
      double sum = 0;
      for (int64_t key = 0; key < kv_len(); ++key) {
        if (!page_->keys.holds(key)) sum += weights.at(row, key);
      }
      return sum;
    });
  }

  bool one_mask_for_all() const {
    const Matrix first = head_bias(trace_, 0);
    for (int64_t head = 1; head < counts().heads; ++head) {
      if (head_bias(trace_, head).numbers != first.numbers) return false;
    }
    return true;
  }

  // One number for each head and query.
  template <class Measure>
  void add_per_query(const std::string& name, Matrix (*of_head)(const Trace&, int64_t),
                     const Measure& measure) {
    std::vector<double> numbers;  // [heads, queries]
    for (int64_t head = 0; head < counts().heads; ++head) {
      const Matrix pairs = of_head(trace_, head);
      for (int64_t row = first_row_; row < first_row_ + counts().queries; ++row) {
        numbers.push_back(measure(pairs, row));
      }
    }
    add(name, {counts().heads, counts().queries}, std::move(numbers));
  }

  void add_results() {
    const Matrix fast = fast_out(job_, result_, trace_), out = traced_out(job_, trace_);
    const int64_t rows = counts().queries;
    add_rows("heads", matrix_of(trace_.steps.heads.view().select(0, 0)), first_row_, rows);
    add_rows("out", out, first_row_, rows);
    add_rows("fast", fast, first_row_, rows);
    page_->fast_path = message(isa(), ", ", dtype_name(result_.out.dtype()));
    page_->difference = largest_difference(fast, out);
  }

  const Job& job_;
  const Job::Result& result_;
  const Trace& trace_;
  PageWidths widths_;
  ExplainPage* page_ = nullptr;
  int64_t first_row_ = 0;  // of the trace's rows
  bool with_parameters_ = false;
};

}  // namespace

ExplainPage explain_page(const Job& job, const Job::Result& result, const Trace* trace) {
  ExplainPage page;
  page.title = message("Step by step: ", job.module_name());
  page.subtitle = message(job.understood(), ", ", dtype_name(job.query().dtype()));
  if (job.batched() && job.batch_first(job.query()).size(0) > 1)
    page.subtitle += "; item 1 of the batch";
  page.facts = {message("Computed in double by polyhead ", version(), ".")};
  const ModuleArguments& a = job.arguments();
  for (const auto& [flag, path] : {std::pair{"Weights: ", &a.weights},
                                   {"Query: ", &a.query},
                                   {"Key: ", &a.key},
                                   {"Value: ", &a.value}}) {
    if (!path->empty()) page.facts.push_back(message(flag, *path));
  }
  if (trace != nullptr) PageBuilder(job, result, *trace).fill(page);
  return page;
}

}  // namespace polyhead::cli
