// Writes the pages that report_page_test.py opens: make_report_pages FOLDER
//   small.html    three layers of six made-up heads, two items, hostile labels
//   matrix.html   one layer above 128 tokens, rows and columns of different number
//   nan.html      two heads, the weights of the first all NaN
//   none.html     a layer without a name, and no queries
//   twice.html    tokens that come again, a head that looks at what followed them
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <polyhead/tensor_view.h>
#include "report/report.h"

namespace polyhead {
namespace {

// Scores to softmax weights, row by row: score(layer, head, query, key).
using Score = std::function<double(int64_t, int64_t, int64_t, int64_t)>;

Tensor softmax_weights(int64_t layer, const std::vector<int64_t>& shape, const Score& score) {
  Tensor weights(DType::kFloat32, Shape(shape));  // [batch, heads, q_len, kv_len]
  auto* w = weights.data_as<float>();
  for (int64_t row = 0; row < shape[0] * shape[1] * shape[2]; ++row) {
    const int64_t head = row / shape[2] % shape[1], query = row % shape[2];
    double sum = 0;
    std::vector<double> power(static_cast<size_t>(shape[3]));
    for (size_t key = 0; key < power.size(); ++key) {
      power[key] = std::exp(score(layer, head, query, static_cast<int64_t>(key)));
      sum += power[key];
    }
    for (size_t key = 0; key < power.size(); ++key) {
      w[row * shape[3] + static_cast<int64_t>(key)] = static_cast<float>(power[key] / sum);
    }
  }
  return weights;
}

double made_up_score(int64_t layer, int64_t head, int64_t query, int64_t key) {
  const double sharp = 1.5 + static_cast<double>(layer);
  const double away = std::abs(static_cast<double>(key - query - head + 2));
  return head == 5 ? (key == 0 ? sharp : 0) : -sharp * away;
}

void small_page(const std::string& path) {
  const std::vector<std::string> hostile = {"[CLS]",
                                            "</script>",
                                            "<img src=x onerror=1>",
                                            "\u202eabc",
                                            "\u05d0\u05d1",
                                            "a\nb",
                                            "\xff\xfe",
                                            "",
                                            "[SEP]"};
  const std::vector<std::string> plain = {"the", "cat", "sat"};
  std::vector<Tensor> weights;
  ReportData data = {.title = "Made-up heads </title><script>",
                     .subtitle = "3 layers of 6 heads",
                     .facts = {"A page of the test of the page."},
                     .items = {{"hostile \u202etext", hostile, hostile}, {"plain", plain, plain}},
                     .layers = {}};
  for (int64_t layer = 0; layer < 3; ++layer) {
    weights.push_back(softmax_weights(layer, {2, 6, 9, 9}, made_up_score));
  }
  for (size_t layer = 0; layer < weights.size(); ++layer) {
    data.layers.push_back({"Layer " + std::to_string(layer + 1), weights[layer]});
  }
  write_report(path, data);
}

void matrix_page(const std::string& path) {
  const Tensor weights = softmax_weights(0, {1, 4, 700, 1000}, made_up_score);
  write_report(path, {.title = "A large matrix",
                      .items = {{.title = ""}},
                      .layers = {{.name = "Layer 1", .weights = weights}}});
}

void nan_page(const std::string& path) {
  Tensor weights = softmax_weights(0, {1, 2, 9, 9}, made_up_score);
  std::fill_n(weights.data_as<float>(), 9 * 9, std::numeric_limits<float>::quiet_NaN());
  write_report(path, {.title = "A head of NaN",
                      .items = {{.title = ""}},
                      .layers = {{.name = "Layer 1", .weights = weights}}});
}

void empty_page(const std::string& path) {
  const Tensor weights(DType::kFloat32, {1, 2, 0, 9});
  write_report(path, {.title = "No queries",
                      .items = {{.title = "The batch is empty"}},
                      .layers = {{.weights = weights}}});
}

// Head 1 looks at what followed the same token before, head 2 at itself and so does head 3.
void twice_page(const std::string& path) {
  const std::vector<std::string> tokens = {"a", "b", "c", "a", "b", "c"};
  const auto score = [](int64_t, int64_t head, int64_t query, int64_t key) {
    return key == (head == 0 && query > 2 ? query - 2 : query) ? 9.0 : 0.0;
  };
  const Tensor weights = softmax_weights(0, {1, 3, 6, 6}, score);
  write_report(path, {.title = "Twice",
                      .guide = {"Look at head 1.", "<b>Then</b> at the others."},
                      .items = {{.title = "", .query_labels = tokens, .key_labels = tokens}},
                      .layers = {{.weights = weights}}});
}

}  // namespace
}  // namespace polyhead

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: make_report_pages FOLDER\n");
    return 2;
  }
  const std::string folder = argv[1];
  polyhead::small_page(folder + "/small.html");
  polyhead::matrix_page(folder + "/matrix.html");
  polyhead::nan_page(folder + "/nan.html");
  polyhead::empty_page(folder + "/none.html");
  polyhead::twice_page(folder + "/twice.html");
  return 0;
}
