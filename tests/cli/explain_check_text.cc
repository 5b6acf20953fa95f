#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <regex>
#include <set>
#include <sstream>

#include "base/message.h"
#include "explain_check.h"

namespace polyhead::cli {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

// Half of what the last printed digit stands for.
long double half_digit(const std::string& printed) {
  const size_t exponent = printed.find('e');
  const size_t point = printed.find('.');
  const std::string digits = printed.substr(0, exponent);
  const int power = exponent == printed.npos ? 0 : std::stoi(printed.substr(exponent + 1));
  const size_t decimals = point == digits.npos ? 0 : digits.size() - point - 1;
  return 0.5L * std::pow(10.0L, power - static_cast<int>(decimals));
}

bool printed_as(const std::string& printed, const Bounded& want) {
  if (printed == "nan" || printed == "-nan") return std::isnan(want.value);
  if (printed == "inf" || printed == "-inf") return within(std::stold(printed), want);
  // The double that was printed is no further from `want` than the bound.
  const long double margin = half_digit(printed) * (1 + 0x1p-40L);
  return within(std::stold(printed), want, margin);
}

// The matrices of the text, in its order; of head 1 where a step shows one head.
struct Shown {
  std::string title, name;  // in the text; in what is expected
  bool head = false;        // columns of head 1, and the appended rows
};

Numbers of_first_head(const Expected& expected, const Shown& shown) {
  const Numbers& all = expected.at(shown.name);
  const bool pairs = all.shape.size() == 3;
  const int64_t heads = expected.at("scores").shape[0];
  const int64_t rows = pairs ? all.shape[1] : all.shape[0];
  const int64_t columns = pairs ? all.shape[2] : all.shape[1] / (shown.head ? heads : 1);
  Numbers part{{rows, columns}, {}};
  for (int64_t n = 0; n < rows * columns; ++n) {
    part.numbers.push_back(
        all.numbers[static_cast<size_t>(n / columns * all.shape.back() + n % columns)]);
  }
  const auto extra = expected.find("extra_" + shown.name);
  if (!shown.head || extra == expected.end()) return part;
  part.shape[0] += extra->second.shape[1];
  part.numbers.insert(part.numbers.end(), extra->second.numbers.begin(),
                      extra->second.numbers.begin() + extra->second.shape[1] * columns);
  return part;
}

std::vector<Shown> shown_matrices(const Expected& expected, bool other_key) {
  std::vector<Shown> shown = {{"query", "query"}, {"q", "q"}, {"k", "k"}, {"v", "v"}};
  if (expected.contains("value")) shown.insert(shown.begin() + 1, {"value", "value"});
  if (other_key) shown.insert(shown.begin() + 1, {"key", "key"});
  shown.insert(shown.end(), {{"q of head 1", "q", true},
                             {"k of head 1", "k", true},
                             {"v of head 1", "v", true},
                             {"scores", "scores"},
                             {"scaled", "scaled"}});
  if (expected.contains("mask")) {
    shown.insert(shown.end(), {{"mask", "mask"}, {"masked", "masked"}});
  }
  shown.insert(shown.end(), {{"weights", "weights"},
                             {"out of head 1", "heads", true},
                             {"concatenated", "heads"},
                             {"out", "out"},
                             {"out", "fast"}});
  return shown;
}

void expect_matrix(const TextMatrix& printed, const Numbers& want, int64_t first_row) {
  EXPECT_EQ(printed.columns, want.shape[1]) << printed.name;
  const bool empty = printed.rows == 0 || printed.columns == 0;
  EXPECT_GE(printed.cells.size(),
            empty ? 0 : static_cast<size_t>(std::min<int64_t>(3, printed.rows)));
  for (size_t i = 0; i < printed.cells.size(); ++i) {
    ASSERT_LE(printed.cells[i].size(), static_cast<size_t>(want.shape[1]));
    for (size_t j = 0; j < printed.cells[i].size(); ++j) {
      const size_t row = i + static_cast<size_t>(first_row);
      const Bounded& number = want.numbers.at(row * static_cast<size_t>(want.shape[1]) + j);
      ASSERT_TRUE(printed_as(printed.cells[i][j], number))
          << printed.name << "[" << i << ", " << j << "] is printed as " << printed.cells[i][j]
          << "; must be " << static_cast<double>(number.value);
    }
  }
}

std::string dims(int64_t rows, int64_t columns) { return message("[", rows, ", ", columns, "]"); }

// x . weight^T + bias, the shapes.
std::string linear_shapes(const Expected& expected, const std::string& letter, int64_t rows) {
  const Numbers& weight = expected.at(message("w_", letter));
  const int64_t out = weight.shape[0], in = weight.shape[1];
  const bool bias = expected.contains(message("b_", letter));
  return message(dims(rows, in), " . ", dims(out, in), "^T", bias ? message(" + [", out, "]") : "",
                 " -> ", dims(rows, out));
}

// The numbers that stand in sentences.
void expect_sentences(const std::string& text, const Expected& expected, int64_t rows) {
  const Numbers& scores = expected.at("scores");
  const int64_t heads = scores.shape[0], columns = scores.shape[2];
  const int64_t width = expected.at("q").shape[1], dim = width / heads;
  const int64_t keys = expected.at("k").shape[0];
  const std::string pairs = dims(rows, columns), by_head = dims(columns, dim);
  for (const std::string& words :
       {linear_shapes(expected, "q", rows), linear_shapes(expected, "k", keys),
        linear_shapes(expected, "v", keys), linear_shapes(expected, "o", rows),
        message("[", rows, ", ", width, "] -> [", heads, ", ", rows, ", ", dim, "]"),
        dim == 1 ? std::string("a column for each head, in order")
                 : message("head 1 is columns 0 to ", dim - 1),
        message(dims(rows, dim), " . ", by_head, "^T -> ", pairs),
        message("scores / sqrt(head_dim) = scores / sqrt(", dim, ") = scores * "),
        message(pairs, " . ", by_head, " -> ", dims(rows, dim)),
        message(heads, " x ", dims(rows, dim), " -> ", dims(rows, width))}) {
    EXPECT_NE(text.find(words), text.npos) << words << "\n" << text;
  }
  std::smatch scale;
  ASSERT_TRUE(std::regex_search(text, scale, std::regex("= scores \\* ([0-9.e-]+)")));
  EXPECT_TRUE(printed_as(scale[1], {1 / std::sqrt(static_cast<long double>(dim)), 0})) << scale[1];
}

// "n of m pairs (query, key) hidden", of head 1.
void expect_hidden_count(const std::string& text, const Numbers& mask, int64_t first_row,
                         int64_t rows) {
  int64_t hidden = 0;
  for (int64_t n = first_row * mask.shape[2]; n < (first_row + rows) * mask.shape[2]; ++n) {
    hidden += mask.numbers[static_cast<size_t>(n)].value == -kInf;
  }
  const std::string words = message(hidden, " of ", rows * mask.shape[2], " pair");
  EXPECT_NE(text.find(words), text.npos) << words << "\n" << text;
}

// A head's smallest and largest finite number, or of all heads.
struct Range {
  Bounded least{kInf, 0}, most{-kInf, 0};
};

Range range_of(const Numbers& all, int64_t heads, int64_t first_row, int64_t rows) {
  Range range;
  for (int64_t n = 0; n < heads * rows * all.shape[2]; ++n) {
    const int64_t row = n / all.shape[2], i = first_row + row % rows;
    const int64_t place = (row / rows * all.shape[1] + i) * all.shape[2] + n % all.shape[2];
    const Bounded& number = all.numbers[static_cast<size_t>(place)];
    if (!std::isfinite(number.value)) continue;
    if (number.value < range.least.value) range.least = number;
    if (number.value > range.most.value) range.most = number;
  }
  return range;
}

// The ends of the shades as printed: two, one where all numbers are equal, none if there is none.
using Legend = std::vector<std::string>;

std::vector<Legend> read_legends(const std::string& text) {
  static const std::regex kLegend(
      " *(?:\".\" ([^ ]+)(?:  to  \".\" ([^ ]+))?|no finite number)(?:  .*)?");
  std::vector<Legend> legends;
  std::istringstream lines(text);
  std::smatch parts;
  for (std::string line; std::getline(lines, line);) {
    if (!std::regex_match(line, parts, kLegend)) continue;
    Legend& legend = legends.emplace_back();
    for (const size_t end : {1, 2}) {
      if (parts[end].matched) legend.push_back(parts[end]);
    }
  }
  return legends;
}

// Of what must be pictured, in the order of the text: the pairs of head 1 that are not all written
// out, and the gallery of all heads.
std::vector<Range> pictured_ranges(const std::vector<TextMatrix>& printed, const Expected& expected,
                                   int64_t first_row) {
  const std::set<std::string> pairs = {"scores", "masked", "weights"};
  std::vector<Range> ranges;
  for (const TextMatrix& one : printed) {
    if (one.rows == 0 || one.columns == 0 || !pairs.contains(one.name)) continue;
    const Numbers& all = expected.at(one.name);
    const bool whole = std::ssize(one.cells) == one.rows && std::ssize(one.cells[0]) == one.columns;
    if (!whole) ranges.push_back(range_of(all, 1, first_row, one.rows));
    const bool gallery = one.name == "weights" && all.shape[0] > 1;
    if (gallery) ranges.push_back(range_of(all, all.shape[0], first_row, one.rows));
  }
  return ranges;
}

void expect_legends(const std::string& text, const std::vector<Range>& ranges) {
  const std::vector<Legend> legends = read_legends(text);
  ASSERT_EQ(legends.size(), ranges.size()) << text;
  for (size_t n = 0; n < legends.size(); ++n) {
    EXPECT_EQ(legends[n].empty(), ranges[n].least.value > ranges[n].most.value) << text;
    if (legends[n].empty()) continue;
    EXPECT_TRUE(printed_as(legends[n].front(), ranges[n].least)) << legends[n].front();
    EXPECT_TRUE(printed_as(legends[n].back(), ranges[n].most)) << legends[n].back();
  }
}

}  // namespace

void expect_text(const std::string& text, const Expected& expected, const Page& page) {
  const int64_t q_len = expected.at("query").shape[0];
  std::smatch part;
  int64_t first_row = 0, rows = q_len;
  if (std::regex_search(text, part, std::regex("for queries ([0-9]+) to ([0-9]+) of ([0-9]+)"))) {
    first_row = std::stoll(part[1]);
    rows = std::stoll(part[2]) - first_row + 1;
    EXPECT_EQ(std::stoll(part[3]), q_len);
  }
  const std::vector<TextMatrix> printed = read_matrices(text);
  const bool other_key = text.find("\n   key [") != text.npos;
  const std::vector<Shown> shown = shown_matrices(expected, other_key);
  ASSERT_EQ(printed.size(), shown.size()) << text;
  for (size_t n = 0; n < shown.size(); ++n) {
    ASSERT_EQ(printed[n].name, shown[n].title) << text;
    const Numbers want = of_first_head(expected, shown[n]);
    const bool of_keys = want.shape[0] != q_len || printed[n].name.rfind("k", 0) == 0 ||
                         printed[n].name.rfind("v", 0) == 0;
    expect_matrix(printed[n], want, of_keys ? 0 : first_row);
    EXPECT_EQ(printed[n].rows, of_keys ? want.shape[0] : rows) << printed[n].name;
    if (want.shape[0] <= 10) {
      EXPECT_EQ(printed[n].cells.size(), want.shape[1] ? static_cast<size_t>(want.shape[0]) : 0);
    }
  }
  expect_sentences(text, expected, rows);
  expect_legends(text, pictured_ranges(printed, expected, first_row));
  const bool counts = expected.contains("mask") && !page.meta["soft"].get<bool>();
  if (counts) expect_hidden_count(text, expected.at("mask"), first_row, rows);
  std::smatch difference;
  ASSERT_TRUE(std::regex_search(text, difference, std::regex("from step 9: ([-+0-9.einfa]+);")));
  EXPECT_TRUE(printed_as(difference[1], {page.difference, 0})) << difference[1];
}

}  // namespace polyhead::cli
