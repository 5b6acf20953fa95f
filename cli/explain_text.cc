#include "explain_text.h"

#include <algorithm>
#include <limits>
#include <ostream>

#include "base/message.h"
#include "explain_steps.h"
#include "text.h"

namespace polyhead::cli {
namespace {

constexpr int kIndent = 3, kNumberIndent = 5;
constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr size_t kMostGalleryHeads = 64;

class Printer {
 public:
  Printer(const Job& job, const Trace& trace, const Terminal& terminal, std::ostream& out)
      : job_(job),
        trace_(trace),
        terminal_(terminal),
        out_(out),
        heads_(trace.num_heads),
        dot_(terminal.unicode ? " \u00b7 " : " . "),
        transpose_(terminal.unicode ? "\u1d40" : "^T"),
        arrow_(terminal.unicode ? " \u2192 " : " -> ") {}

  void print() {
    project();
    split();
    scores();
    scale();
    mask();
    softmax();
    weighted_sum();
    concatenate();
    project_out();
  }

 private:
  bool seed() const { return job_.scratch() != nullptr; }
  bool full_width() const { return seed() && job_.scratch()->head_width() == HeadWidth::kFull; }

  void step(Step step, const std::string& note) {
    out_ << "\n"
         << terminal_.bold(message(static_cast<int>(step) + 1, ". ", step_title(step)))
         << terminal_.dim("  (" + note + ")") << "\n";
  }
  std::string of_first_head() const { return message("head 1 of ", heads_); }
  void line(const std::string& text) { out_ << std::string(kIndent, ' ') << text << "\n"; }
  // The line of the from-scratch class that does this step.
  void code(Step step) {
    if (seed()) line(terminal_.dim(python_line(step, full_width())));
  }
  // The shapes stand beside the formula where there is room.
  void formula(const std::string& text, const std::string& shapes) {
    if (kIndent + display_width(text) + 4 + display_width(shapes) <= terminal_.width) {
      line(text + "    " + shapes);
    } else {
      line(text);
      line("    " + shapes);
    }
  }
  // x [rows, in], weight [out, in], bias [out] -> [rows, out]
  std::string linear_shapes(const ConstTensorView& x, int64_t out_features, bool bias) const {
    return message(x.shape_string(), dot_, "[", out_features, ", ", x.size(1), "]", transpose_,
                   bias ? message(" + [", out_features, "]") : "", arrow_, "[", x.size(0), ", ",
                   out_features, "]");
  }
  void numbers(const std::string& name, const Matrix& matrix, Picture picture = Picture::kNo) {
    line(name + " " + shape_text(matrix));
    out_ << matrix_text(matrix, terminal_, kNumberIndent, picture);
  }

  void project() {
    step(Step::kProject, "three linear layers");
    static constexpr const char* kInputs[] = {"query", "key", "value"};
    const ConstTensorView* inputs[] = {&trace_.query, &trace_.key, &trace_.value};
    const Tensor* projected[] = {&trace_.steps.query, &trace_.steps.key, &trace_.steps.value};
    for (size_t n = 0; n < 3; ++n) {
      const std::string letter(1, "qkv"[n]);
      if (seed()) line(terminal_.dim(python_projection(letter)));
      formula(message(letter, " = ", kInputs[n], dot_, "W_", letter, transpose_,
                      trace_.has_in_bias ? " + b_" + letter : ""),
              linear_shapes(*inputs[n], projected[n]->size(2), trace_.has_in_bias));
    }
    numbers("query", matrix_of(trace_.query));
    if (!job_.arguments().key.empty()) numbers("key", matrix_of(trace_.key));
    if (!job_.arguments().value.empty()) numbers("value", matrix_of(trace_.value));
    for (size_t n = 0; n < 3; ++n) {
      numbers(std::string(1, "qkv"[n]), matrix_of(projected[n]->view().select(0, 0)));
    }
  }

  void split() {
    const int64_t width = trace_.head_dim;
    step(Step::kSplit, of_first_head());
    code(Step::kSplit);
    formula(message("[", trace_.rows, ", ", heads_ * width, "]", arrow_, "[", heads_, ", ",
                    trace_.rows, ", ", width, "]"),
            width == 1 ? "a column for each head, in order"
                       : message("head 1 is columns 0 to ", width - 1,
                                 heads_ > 1 ? message(", head 2 the next ", width, ", ...") : ""));
    if (full_width()) line("full head width: each head is as wide as the embedding");
    if (trace_.has_bias_kv) line("bias_k and bias_v join as one more key and value");
    if (job_.arguments().add_zero_attn) {
      line("add_zero_attn: one more key and value, all zero, comes last");
    }
    numbers("q of head 1", head_operand(trace_, Operand::kQuery, 0));
    numbers("k of head 1", head_operand(trace_, Operand::kKey, 0));
    numbers("v of head 1", head_operand(trace_, Operand::kValue, 0));
  }

  void scores() {
    const Matrix unscaled = head_unscaled(trace_, 0);
    step(Step::kScores, "how well each query matches each key; " + of_first_head());
    code(Step::kScores);
    formula("scores = q" + dot_ + "k" + transpose_,
            message("[", trace_.rows, ", ", trace_.head_dim, "]", dot_, "[", trace_.columns, ", ",
                    trace_.head_dim, "]", transpose_, arrow_, shape_text(unscaled)));
    numbers("scores", unscaled, Picture::kYes);
  }

  void scale() {
    step(Step::kScale, "so that wide heads are no steeper than narrow ones; " + of_first_head());
    code(Step::kScale);
    line(message("scaled = scores / sqrt(head_dim) = scores / sqrt(", trace_.head_dim,
                 ") = scores * ", trace_.scale()));
    numbers("scaled", head_scores(trace_, 0));
  }

  void mask() {
    if (!trace_.has_masks) {
      step(Step::kMask, "none given");
      line("every query may look at every key: the scores stay as they are");
      return;
    }
    step(Step::kMask, of_first_head());
    code(Step::kMask);
    line(seed() ? "masked = scaled + mask * -1e5: a 1 hides softly"
                : "masked = scaled + mask: -inf where a key is hidden from a query");
    const Matrix masked = head_masked(trace_, 0);
    numbers("mask", head_bias(trace_, 0));
    numbers("masked", masked, Picture::kYes);
    if (seed()) return;
    line(message(std::count(masked.numbers.begin(), masked.numbers.end(), -kInf), " of ",
                 counted(static_cast<int64_t>(masked.numbers.size()), "pair", "pairs"),
                 " (query, key) hidden"));
  }

  void softmax() {
    step(Step::kSoftmax, "each query's weights add up to 1; " + of_first_head());
    code(Step::kSoftmax);
    line("weights[i, j] = exp(masked[i, j]) / sum over j of exp(masked[i, j])");
    numbers("weights", head_weights(trace_, 0), Picture::kYes);
    empty_rows();
    if (heads_ > 1) gallery();
  }

  void gallery() {
    line("weights of every head, a row for each query, a column for each key:");
    std::vector<Matrix> weights;
    std::vector<std::string> captions;
    const size_t shown = std::min(static_cast<size_t>(heads_), kMostGalleryHeads);
    for (size_t h = 0; h < shown; ++h) {
      weights.push_back(head_weights(trace_, static_cast<int64_t>(h)));
      captions.push_back("head " + std::to_string(h + 1));
    }
    out_ << gallery_text(weights, captions, terminal_, kNumberIndent);
    if (shown < static_cast<size_t>(heads_)) line(message("and ", heads_, " heads in all"));
  }

  // A row of -inf alone has no softmax.
  void empty_rows() {
    const Matrix masked = head_masked(trace_, 0);
    for (int64_t i = 0; i < masked.rows; ++i) {
      bool empty = true;
      for (int64_t j = 0; j < masked.columns; ++j) empty = empty && masked.at(i, j) == -kInf;
      if (!empty) continue;
      const bool nan = job_.arguments().empty_rows == EmptyRow::kNan;
      line(message("row ", i, ": this query sees no key; its weights are ",
                   nan ? "NaN, as --empty-rows nan asks" : "0 (--empty-rows zero)"));
      return;
    }
  }

  void weighted_sum() {
    const Matrix out = head_out(trace_, 0);
    step(Step::kWeightedSum, "the values, mixed by the weights; " + of_first_head());
    code(Step::kWeightedSum);
    formula("out = weights" + dot_ + "v",
            message("[", trace_.rows, ", ", trace_.columns, "]", dot_, "[", trace_.columns, ", ",
                    trace_.head_dim, "]", arrow_, shape_text(out)));
    numbers("out of head 1", out);
  }

  void concatenate() {
    const Matrix concatenated = matrix_of(trace_.steps.heads.view().select(0, 0));
    step(Step::kConcatenate, "the heads side by side again");
    code(Step::kConcatenate);
    line(message(heads_, " x [", trace_.rows, ", ", trace_.head_dim, "]", arrow_,
                 shape_text(concatenated)));
    numbers("concatenated", concatenated);
  }

  void project_out() {
    const ConstTensorView concatenated = trace_.steps.heads.view().select(0, 0);
    step(Step::kProjectOut, "one more linear layer mixes the heads");
    code(Step::kProjectOut);
    formula(
        message("out = concatenated", dot_, "W_o", transpose_, trace_.has_out_bias ? " + b_o" : ""),
        linear_shapes(concatenated, trace_.query.size(1), trace_.has_out_bias));
    numbers("out", traced_out(job_, trace_));
  }

  const Job& job_;
  const Trace& trace_;
  const Terminal& terminal_;
  std::ostream& out_;
  int64_t heads_;
  std::string dot_, transpose_, arrow_;
};

}  // namespace

std::string shape_text(const Matrix& matrix) {
  return message("[", matrix.rows, ", ", matrix.columns, "]");
}

void print_trace(const Job& job, const Trace& trace, const Terminal& terminal, std::ostream& out) {
  Printer(job, trace, terminal, out).print();
}

}  // namespace polyhead::cli
