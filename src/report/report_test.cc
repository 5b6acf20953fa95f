#include "report/report.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>
#include <polyhead/error.h>
#include "report/page_sources.h"
#include "report/quantise.h"
#include "report/sha256.h"
#include "report/text_encoding.h"

namespace polyhead {
namespace {

// Two items, two heads, rows that sum to one.
Tensor uniform_weights(int64_t len) {
  Tensor weights(DType::kFloat32, {2, 2, len, len});
  auto* w = weights.data_as<float>();
  for (int64_t i = 0; i < weights.numel(); ++i) w[i] = 1.0F / static_cast<float>(len);
  return weights;
}

ReportData data_of(const Tensor& weights, const std::string& label = "token") {
  const std::vector<std::string> labels(static_cast<size_t>(weights.size(2)), label);
  return {.title = "Title",
          .items = {{.title = "one", .query_labels = labels, .key_labels = labels},
                    {.title = "two", .query_labels = {"a"}, .key_labels = {"b", "c"}}},
          .layers = {{.name = "Layer 1", .weights = weights}}};
}

size_t occurrences(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(Report, HostileTextNeverReachesTheMarkup) {
  const Tensor weights = uniform_weights(3);
  ReportData data = data_of(weights, "</script><script>alert(1)</script>");
  data.title = "</title><img src=x onerror=alert(2)>";
  data.items[0].title = "{{SCRIPT}}";
  const std::string html = report_html(data);
  EXPECT_EQ(html.find("<script>alert"), std::string::npos);
  EXPECT_EQ(html.find("<img"), std::string::npos);
  EXPECT_EQ(html.find("{{"), std::string::npos);
  // meta, stats and weights of two items, and the one script that runs.
  EXPECT_EQ(occurrences(html, "<script"), 6U);
  EXPECT_EQ(occurrences(html, "</script"), 6U);
}

TEST(Report, ThePolicyNamesTheScriptThatTheFileHolds) {
  const std::string html = report_html(data_of(uniform_weights(2)));
  const size_t begin = html.rfind("<script>") + 8;
  const std::string script = html.substr(begin, html.rfind("</script>") - begin);
  EXPECT_EQ(script, page_sources::kHeads.script);
  const Sha256::Digest digest = sha256(script);
  EXPECT_NE(html.find("script-src 'sha256-" + base64(digest.data(), digest.size()) + "'"),
            std::string::npos);
  EXPECT_NE(html.find("default-src 'none'"), std::string::npos);
}

TEST(Report, StaysSmallAndAsksNothingOfTheNetwork) {
  const std::string html = report_html(data_of(uniform_weights(2)));
  EXPECT_LT(html.size(), 150U * 1024);
  for (const char* word : {"src=\"", "href=\"", "url(", "@import", "fetch(", "XMLHttp"}) {
    EXPECT_EQ(html.find(word), std::string::npos) << word;
  }
}

TEST(Report, RefusesShapesThatDoNotFit) {
  const Tensor weights = uniform_weights(3);
  const auto refuses = [](const ReportData& data) {
    EXPECT_THROW(report_html(data), InvalidArgument);
  };
  ReportData data = data_of(weights);
  data.items.pop_back();
  refuses(data);
  data = data_of(weights);
  data.items[0].key_labels.emplace_back("one too many");
  refuses(data);
  data = data_of(weights);
  data.layers[0].head_notes = {"only one for two heads"};
  refuses(data);
  data = data_of(weights);
  data.layers.clear();
  refuses(data);
  data = data_of(weights);
  data.layers[0].weights = weights.view().select(0, 0);
  refuses(data);
}

TEST(Report, RefusesMoreWeightsThanAPageHolds) {
  const float one = 1;
  const std::vector<int64_t> shape = {1, 1, 6000, 6000}, strides = {0, 0, 0, 0};
  const ConstTensorView weights(&one, DType::kFloat32, shape, strides);
  EXPECT_THROW(
      report_html(
          {.title = "t", .items = {{.title = "i"}}, .layers = {{.name = "l", .weights = weights}}}),
      InvalidArgument);
}

TEST(Quantise, LossIsWhatItSaysAndWithinHalfAStep) {
  Tensor weights(DType::kFloat64, {1, 1, 1001});
  auto* w = weights.data_as<double>();
  for (int i = 0; i <= 1000; ++i) w[i] = i / 1000.0;
  QuantiseLoss linear, root;
  EXPECT_EQ(quantise(weights, WeightCode::kLinear16, &linear).size(), 2002U);
  EXPECT_EQ(quantise(weights, WeightCode::kRoot8, &root).size(), 1001U);
  EXPECT_GT(linear.worst, 0);
  EXPECT_LE(linear.worst, 0.5 / 65535 * (1 + 1e-9));
  EXPECT_GT(root.worst, linear.worst);
  EXPECT_LE(root.worst, 1.0 / 255);
}

TEST(Quantise, NanIsCountedAndStoredAsZero) {
  Tensor weights(DType::kFloat32, {1, 1, 2});
  weights.data_as<float>()[0] = std::numeric_limits<float>::quiet_NaN();
  weights.data_as<float>()[1] = 1;
  QuantiseLoss loss;
  EXPECT_EQ(quantise(weights, WeightCode::kLinear16, &loss), std::string("\0\0\xff\xff", 4));
  EXPECT_EQ(loss.nan, 1);
  EXPECT_EQ(loss.worst, 0);
}

TEST(Quantise, ReadsThroughStrides) {
  Tensor weights(DType::kFloat32, {1, 2, 2});
  const float values[] = {0, 1, 0, 0};
  std::copy(values, values + 4, weights.data_as<float>());
  QuantiseLoss loss;
  EXPECT_EQ(quantise(weights.view().transposed(1, 2), WeightCode::kRoot8, &loss),
            std::string("\0\0\xff\0", 4));
}

}  // namespace
}  // namespace polyhead
