#include "explain_outputs.h"

#include <bit>
#include <cstdint>
#include <regex>
#include <sstream>
#include <stdexcept>

namespace polyhead::cli {
namespace {

std::string from_base64(const std::string& text) {
  static const std::string kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  uint32_t bits = 0;
  int count = 0;
  for (const char digit : text.substr(0, text.find('='))) {
    bits = bits << 6 | static_cast<uint32_t>(kDigits.find(digit));
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes.push_back(static_cast<char>(bits >> count));
  }
  return bytes;
}

std::string block(const std::string& html, const std::string& id) {
  const std::string start = "<script type=\"application/octet-stream\" id=\"" + id + "\">";
  const size_t at = html.find(start);
  if (at == html.npos) throw std::runtime_error("the page has no block " + id);
  const size_t begin = at + start.size();
  return from_base64(html.substr(begin, html.find("</script>", begin) - begin));
}

std::vector<double> doubles(const std::string& bytes) {
  std::vector<double> numbers;
  for (size_t at = 0; at + 8 <= bytes.size(); at += 8) {
    uint64_t bits = 0;
    for (size_t n = 8; n-- > 0;) bits = bits << 8 | static_cast<uint8_t>(bytes[at + n]);
    numbers.push_back(std::bit_cast<double>(bits));
  }
  return numbers;
}

// "     0.1000  -inf  ..." as its numbers; empty if it is anything else.
std::vector<std::string> numbers_of_line(const std::string& line) {
  static const std::regex kNumber("-?([0-9.]+(e[-+][0-9]+)?|inf|nan)");
  std::vector<std::string> cells;
  std::istringstream words(line);
  for (std::string word; words >> word;) {
    if (word == "...") return cells;
    if (!std::regex_match(word, kNumber)) return {};
    cells.push_back(word);
  }
  return cells;
}

}  // namespace

Page read_page(const std::string& html) {
  Page page;
  page.meta = nlohmann::json::parse(block(html, "meta"));
  for (const auto& [name, shape] : page.meta["matrices"].items()) {
    page.matrices[name] = {shape.get<std::vector<int64_t>>(), doubles(block(html, "m-" + name))};
  }
  page.difference = doubles(block(html, "m-difference")).at(0);
  return page;
}

std::vector<TextMatrix> read_matrices(const std::string& text) {
  static const std::regex kTitle("   ([a-z][a-z0-9 ]*) \\[([0-9]+), ([0-9]+)\\]");
  std::vector<TextMatrix> matrices;
  std::istringstream lines(text);
  bool in_matrix = false;
  for (std::string line; std::getline(lines, line);) {
    std::smatch parts;
    if (std::regex_match(line, parts, kTitle)) {
      matrices.push_back({parts[1], std::stoll(parts[2]), std::stoll(parts[3]), {}});
      in_matrix = true;
      continue;
    }
    const std::vector<std::string> cells = numbers_of_line(line);
    in_matrix = in_matrix && !cells.empty();
    if (in_matrix) matrices.back().cells.push_back(cells);
  }
  return matrices;
}

}  // namespace polyhead::cli
