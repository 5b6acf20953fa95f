#include "heads.h"

#include <algorithm>
#include <cstdio>

#include <polyhead/report.h>

namespace train {
namespace {

using polyhead::ConstTensorView;
using polyhead::Tensor;

constexpr int64_t kRowsOnPage = 4;
constexpr double kIsInductionHead = 0.5;

std::string percent(double score) {
  char text[32];
  std::snprintf(text, sizeof text, "%.0f %%", 100 * score);
  return text;
}

std::string head_name(size_t layer, size_t head) {
  return "layer " + std::to_string(layer + 1) + ", head " + std::to_string(head + 1);
}

// Which head is the best of all, and whether that is good.
std::string verdict(const std::vector<std::vector<double>>& scores, size_t rows) {
  size_t layer = 0, head = 0;
  for (size_t l = 0; l < scores.size(); ++l) {
    for (size_t h = 0; h < scores[l].size(); ++h) {
      if (scores[l][h] <= scores[layer][head]) continue;
      layer = l;
      head = h;
    }
  }
  const double best = scores[layer][head];
  return "Most clearly it is " + head_name(layer, head) + ", with " + percent(best) +
         " of the weight of these tokens over " + std::to_string(rows) + " rows" +
         (best > kIsInductionHead ? "." : ": no induction head yet, so train for longer.");
}

// For who has never seen one.
std::vector<std::string> guide(const std::string& verdict) {
  return {
      "Whoever reads a token for the second time can know what comes next: what came after it the "
      "first time. One layer cannot look that up, since a token says nothing of the one before "
      "it. Two layers can.",
      "Layer 1: a dark line just below the diagonal is a head that looks at the previous token. It "
      "leaves in each token the mark of the one before.",
      "Layer 2: a dark line in the lower half, away from the diagonal, is an induction head. Each "
      "token of the second copy looks for the mark of its like, and finds the token that came "
      "next. " +
          verdict + " Point at a token in the lower left to follow its line.",
  };
}

double induction_score(const Heads& heads, const Tensor& weights, int64_t head) {
  double sum = 0, count = 0;
  for (size_t row = 0; row < heads.batch.repeats.size(); ++row) {
    const auto [begin, period] = heads.batch.repeats[row];
    const ConstTensorView view =  // [length, length]
        weights.view().select(0, static_cast<int64_t>(row)).select(0, head);
    // The token after the last one's first occurrence is the second copy's first.
    for (int64_t i = 0; i < period; ++i) {
      const int64_t query = begin + period + i, key = begin + i + 1;
      sum += static_cast<double>(view.data_as<float>()[query * view.stride(0) + key]);
    }
    count += static_cast<double>(period);
  }
  return sum / count;
}

polyhead::ReportItem item_of(const Batch& batch, int64_t row) {
  const auto [begin, period] = batch.repeats[static_cast<size_t>(row)];
  polyhead::ReportItem item;
  item.title = std::to_string(period) + " tokens twice, " + std::to_string(begin) + " before them";
  const ConstTensorView tokens = batch.tokens.view().select(0, row);  // [length]
  for (int64_t i = 0; i < tokens.size(0); ++i) {
    item.query_labels.push_back(std::to_string(tokens.data_as<int64_t>()[i]));
  }
  item.key_labels = item.query_labels;
  return item;
}

}  // namespace

std::vector<std::vector<double>> induction_scores(const Heads& heads) {
  std::vector<std::vector<double>> scores;
  for (const Tensor& weights : heads.weights) {
    std::vector<double>& of_layer = scores.emplace_back();
    for (int64_t head = 0; head < weights.size(1); ++head) {
      of_layer.push_back(induction_score(heads, weights, head));
    }
  }
  return scores;
}

void write_page(const std::string& path, const Heads& heads, const std::string& made_by) {
  const int64_t rows = std::min(kRowsOnPage, heads.batch.tokens.size(0));
  const auto scores = induction_scores(heads);
  polyhead::ReportData data{
      .title = "What two layers of attention learned",
      .subtitle = "To continue rows in which a piece of random tokens comes twice",
      .guide = guide(verdict(scores, heads.batch.repeats.size())),
      .facts = {made_by},
      .items = {},
      .layers = {}};
  for (int64_t row = 0; row < rows; ++row) data.items.push_back(item_of(heads.batch, row));
  for (size_t layer = 0; layer < scores.size(); ++layer) {
    std::vector<std::string> notes;
    for (const double score : scores[layer]) {
      notes.push_back("induction " + percent(score) + " over " +
                      std::to_string(heads.batch.repeats.size()) + " rows");
    }
    data.layers.push_back({.name = "Layer " + std::to_string(layer + 1),
                           .weights = heads.weights[layer].view().narrow(0, 0, rows),
                           .head_notes = notes});
  }
  polyhead::write_report(path, data);
}

}  // namespace train
