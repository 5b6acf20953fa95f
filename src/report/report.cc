#include "report/report.h"

#include <bit>
#include <cstring>
#include <limits>
#include <string_view>

#include <polyhead/error.h>
#include <polyhead/io.h>
#include "base/message.h"
#include "report/head_stats.h"
#include "report/page_parts.h"
#include "report/page_sources.h"
#include "report/quantise.h"
#include "report/text_encoding.h"

namespace polyhead {
namespace {

// Up to here 16 bits a weight keep the page under 12 MB.
constexpr int64_t kMaxLinear16Weights = 4'000'000;

int64_t shown_rows(const ReportItem& item, const ConstTensorView& weights) {
  return item.query_labels.empty() ? weights.size(2)
                                   : static_cast<int64_t>(item.query_labels.size());
}

int64_t shown_columns(const ReportItem& item, const ConstTensorView& weights) {
  return item.key_labels.empty() ? weights.size(3) : static_cast<int64_t>(item.key_labels.size());
}

void check_layer(const ReportData& data, size_t l) {
  const ReportLayer& layer = data.layers[l];
  const ConstTensorView& weights = layer.weights;
  const std::string where = message("write_report: layers[", l, "]: ");
  if (!weights.defined() || weights.rank() != 4 ||
      weights.size(0) != static_cast<int64_t>(data.items.size())) {
    throw InvalidArgument(message(where, "weights are ", weights.shape_string(), "; must be [",
                                  data.items.size(), " items, heads, q_len, kv_len]"));
  }
  if (weights.dtype() != DType::kFloat32 && weights.dtype() != DType::kFloat64) {
    throw InvalidArgument(message(where, "weights are ", dtype_name(weights.dtype()),
                                  "; must be float32 or float64"));
  }
  if (!layer.head_notes.empty() &&
      static_cast<int64_t>(layer.head_notes.size()) != weights.size(1)) {
    throw InvalidArgument(message(where, layer.head_notes.size(), " head_notes for ",
                                  weights.size(1), " heads; must be one each or none"));
  }
  for (size_t i = 0; i < data.items.size(); ++i) {
    const int64_t rows = shown_rows(data.items[i], weights);
    const int64_t columns = shown_columns(data.items[i], weights);
    if (rows > weights.size(2) || columns > weights.size(3)) {
      throw InvalidArgument(message(where, "item ", i, " has ", rows, " query and ", columns,
                                    " key labels; weights are ", weights.shape_string()));
    }
  }
}

// Weights that the page will hold, all layers and items.
int64_t count_weights(const ReportData& data) {
  int64_t total = 0;
  for (const ReportLayer& layer : data.layers) {
    for (const ReportItem& item : data.items) {
      total += layer.weights.size(1) * shown_rows(item, layer.weights) *
               shown_columns(item, layer.weights);
    }
  }
  return total;
}

std::string item_json(const ReportItem& item, const ConstTensorView& weights) {
  return message("{\"title\":", json_string(item.title), ",\"rows\":", shown_rows(item, weights),
                 ",\"columns\":", shown_columns(item, weights),
                 ",\"queries\":", json_strings(item.query_labels),
                 ",\"keys\":", json_strings(item.key_labels), "}");
}

// The measure that needs to know the tokens; NaN where they are not known.
double induction_of(const ReportItem& item, const ConstTensorView& weights) {
  return item.query_labels.empty() || item.query_labels != item.key_labels
             ? std::numeric_limits<double>::quiet_NaN()
             : induction_score(weights, item.query_labels);
}

// Titles, labels and sizes.
std::string meta_json(const ReportData& data, WeightCode code, const QuantiseLoss& loss) {
  std::string items, layers;
  for (const ReportItem& item : data.items) {
    if (!items.empty()) items += ",";
    items += item_json(item, data.layers[0].weights);
  }
  for (const ReportLayer& layer : data.layers) {
    if (!layers.empty()) layers += ",";
    layers += message("{\"name\":", json_string(layer.name), ",\"heads\":", layer.weights.size(1),
                      ",\"notes\":", json_strings(layer.head_notes), "}");
  }
  return message("{\"title\":", json_string(data.title),
                 ",\"subtitle\":", json_string(data.subtitle),
                 ",\"guide\":", json_strings(data.guide), ",\"facts\":", json_strings(data.facts),
                 ",\"bits\":", code == WeightCode::kLinear16 ? 16 : 8, ",\"worst\":", loss.worst,
                 ",\"nan\":", loss.nan, ",\"items\":[", items, "],\"layers\":[", layers, "]}");
}

void append_float(std::string* out, double x) {
  const auto bits = std::bit_cast<uint32_t>(static_cast<float>(x));
  for (int shift = 0; shift < 32; shift += 8) out->push_back(static_cast<char>(bits >> shift));
}

void append_stats(std::string* out, const HeadStats& stats, double induction) {
  for (const double x : {stats.entropy_bits, stats.mean_distance, stats.previous, stats.next,
                         stats.diagonal, stats.first, induction}) {
    append_float(out, x);
  }
}

std::string data_blocks(const ReportData& data, WeightCode code) {
  QuantiseLoss loss;
  std::string blocks;
  for (size_t l = 0; l < data.layers.size(); ++l) {
    const ConstTensorView& all = data.layers[l].weights;
    for (size_t i = 0; i < data.items.size(); ++i) {
      const ConstTensorView shown =  // [heads, rows, columns]
          all.select(0, static_cast<int64_t>(i))
              .narrow(1, 0, shown_rows(data.items[i], all))
              .narrow(2, 0, shown_columns(data.items[i], all));
      std::string stats;
      for (int64_t head = 0; head < shown.size(0); ++head) {
        const ConstTensorView one = shown.select(0, head);  // [rows, columns]
        append_stats(&stats, head_stats(one), induction_of(data.items[i], one));
      }
      blocks += data_block(message("stats-", l, "-", i), stats);
      blocks += data_block(message("weights-", l, "-", i), quantise(shown, code, &loss));
    }
  }
  return data_block("meta", meta_json(data, code, loss)) + blocks;
}

}  // namespace

std::string report_html(const ReportData& data) {
  if (data.layers.empty() || data.items.empty()) {
    throw InvalidArgument(message("write_report: data: ", data.layers.size(), " layers, ",
                                  data.items.size(), " items; needs at least one of each"));
  }
  for (size_t l = 0; l < data.layers.size(); ++l) check_layer(data, l);
  const int64_t total = count_weights(data);
  if (total > kMaxReportWeights) {
    throw InvalidArgument(message("write_report: layers: ", total, " weights in all; a page takes ",
                                  kMaxReportWeights, " at most (fewer items, or shorter ones)"));
  }
  const WeightCode code = total <= kMaxLinear16Weights ? WeightCode::kLinear16 : WeightCode::kRoot8;
  return assemble_page(page_sources::kHeads, data.title, data_blocks(data, code));
}

void write_report(const std::string& path, const ReportData& data) {
  save_text(path, report_html(data));
}

}  // namespace polyhead
