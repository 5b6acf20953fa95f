// The page of heads: one HTML file that needs no network and shows every head's weights.
//
//   write_report("attention.html",
//                {.title = "MiniLM", .items = {{.title = "The cat sat.", .query_labels = tokens,
//                 .key_labels = tokens}}, .layers = {{.name = "Layer 1", .weights = weights}}});
//
// Labels and titles are data: markup, control characters and right-to-left marks in them show as
// text. Weights are stored quantised, 16 bits each where that is small and 8 bits otherwise; the
// page states the largest error that this made. The measures of a head are exact.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <polyhead/tensor_view.h>

#pragma GCC visibility push(default)
namespace polyhead {

// One batch item, say a sentence. Without labels its rows and columns are numbered; with labels,
// only as many rows and columns are shown as there are labels (the rest is padding).
struct ReportItem {
  std::string title;
  std::vector<std::string> query_labels = {}, key_labels = {};
};

struct ReportLayer {
  std::string name = {};                     // "Layer 3"; empty: the one layer
  ConstTensorView weights;                   // [batch, heads, q_len, kv_len], float32 or float64
  std::vector<std::string> head_notes = {};  // what each head does, in words; may be empty
};

struct ReportData {
  std::string title;
  std::string subtitle = {};
  std::vector<std::string> guide = {};  // what to look for: paragraphs above the pictures
  std::vector<std::string> facts = {};  // lines at the foot of the page: how this was made
  std::vector<ReportItem> items;        // as many as the batch
  std::vector<ReportLayer> layers;
};

// Above this many weights there is no page: 8 bits each would pass 40 MB.
inline constexpr int64_t kMaxReportWeights = 32'000'000;

// The file appears whole or not at all. Throws InvalidArgument on shapes that do not fit together
// or too many weights, IoError if the file cannot be written.
void write_report(const std::string& path, const ReportData& data);

}  // namespace polyhead
#pragma GCC visibility pop
