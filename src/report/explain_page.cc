#include "report/explain_page.h"

#include <bit>
#include <string_view>

#include <polyhead/error.h>
#include <polyhead/io.h>
#include "base/message.h"
#include "report/page_parts.h"
#include "report/page_sources.h"
#include "report/text_encoding.h"

namespace polyhead {
namespace {

// Little-endian, whatever the machine is.
std::string number_bytes(const std::vector<double>& numbers) {
  std::string bytes;
  bytes.reserve(numbers.size() * sizeof(double));
  for (const double x : numbers) {
    const auto bits = std::bit_cast<uint64_t>(x);
    for (int shift = 0; shift < 64; shift += 8) bytes.push_back(static_cast<char>(bits >> shift));
  }
  return bytes;
}

void check_matrix(const ExplainMatrix& matrix) {
  int64_t count = 1;
  for (const int64_t size : matrix.shape) count *= size;
  if (count == static_cast<int64_t>(matrix.numbers.size())) return;
  throw InvalidArgument(message("write_explain_page: matrices: ", matrix.name, " has ",
                                matrix.numbers.size(), " numbers; its shape holds ", count));
}

// Of values that are JSON already.
std::string json_list(const std::vector<std::string>& values) {
  std::string out = "[";
  for (const std::string& value : values) out += (out.size() > 1 ? "," : "") + value;
  return out + "]";
}

std::string stretch_json(const Stretch& stretch) {
  return message("{\"first\":", stretch.first, ",\"count\":", stretch.count, ",\"of\":", stretch.of,
                 "}");
}

std::string steps_json(const std::vector<ExplainStep>& steps) {
  std::vector<std::string> values;
  for (const ExplainStep& step : steps) {
    std::vector<std::string> lines;
    for (const CodeLine& line : step.cpp) {
      lines.push_back(
          message("{\"file\":", json_string(line.file), ",\"code\":", json_string(line.code), "}"));
    }
    values.push_back(
        message("{\"python\":", json_string(step.python), ",\"cpp\":", json_list(lines), "}"));
  }
  return json_list(values);
}

std::string shapes_json(const std::vector<ExplainMatrix>& matrices) {
  std::string out = "{";
  for (const ExplainMatrix& matrix : matrices) {
    std::vector<std::string> sizes;
    for (const int64_t size : matrix.shape) sizes.push_back(std::to_string(size));
    out += message(out.size() > 1 ? "," : "", json_string(matrix.name), ":", json_list(sizes));
  }
  return out + "}";
}

const char* boolean(bool value) { return value ? "true" : "false"; }

std::string meta_json(const ExplainPage& page) {
  return message(
      "{\"title\":", json_string(page.title), ",\"subtitle\":", json_string(page.subtitle),
      ",\"facts\":", json_strings(page.facts), ",\"queries\":", stretch_json(page.queries),
      ",\"keys\":", stretch_json(page.keys), ",\"heads\":", stretch_json(page.heads),
      ",\"headDim\":", page.head_dim, ",\"extra\":", json_strings(page.extra_columns),
      ",\"masks\":", json_strings(page.masks), ",\"inBias\":", boolean(page.in_bias),
      ",\"outBias\":", boolean(page.out_bias), ",\"soft\":", boolean(page.soft_masks),
      ",\"nanRows\":", boolean(page.nan_rows), ",\"fastPath\":", json_string(page.fast_path),
      ",\"steps\":", steps_json(page.steps), ",\"matrices\":", shapes_json(page.matrices), "}");
}

}  // namespace

std::string explain_html(const ExplainPage& page) {
  std::string blocks = data_block("meta", meta_json(page));
  for (const ExplainMatrix& matrix : page.matrices) {
    check_matrix(matrix);
    blocks += data_block(message("m-", matrix.name), number_bytes(matrix.numbers));
  }
  // A number that JSON might not have: infinite, or NaN.
  blocks += data_block("m-difference", number_bytes({page.difference}));
  return assemble_page(page_sources::kExplain, page.title, blocks);
}

void write_explain_page(const std::string& path, const ExplainPage& page) {
  save_text(path, explain_html(page));
}

}  // namespace polyhead
