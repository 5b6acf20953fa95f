#include "text.h"

#include <algorithm>
#include <cctype>
#include <numeric>

namespace polyhead::cli {
namespace {

// Levenshtein's distance, one row at a time.
size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t swapped = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({swapped, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row.back();
}

}  // namespace

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) {
    text.replace(at, from.size(), to);
  }
  return text;
}

std::string without_function(const std::string& message) {
  const size_t end = message.find(": ");
  if (end == std::string::npos) return message;
  const bool is_name =
      std::all_of(message.begin(), message.begin() + static_cast<int64_t>(end),
                  [](unsigned char c) { return std::isalnum(c) != 0 || c == '_' || c == ':'; });
  return is_name ? message.substr(end + 2) : message;
}

std::string nearest(const std::string& word, const std::vector<std::string>& choices) {
  constexpr size_t kLongestWord = 64;  // nobody mistypes more; the distance is quadratic
  if (word.size() > kLongestWord) return {};
  std::string best;
  size_t best_distance = std::max<size_t>(2, word.size() / 3) + 1;
  for (const std::string& choice : choices) {
    const size_t distance = edit_distance(word, choice);
    if (distance < best_distance) {
      best_distance = distance;
      best = choice;
    }
  }
  return best;
}

std::string counted(int64_t count, const char* one, const char* many) {
  return std::to_string(count) + " " + (count == 1 ? one : many);
}

int display_width(std::string_view text) {
  // Continuation bytes (10xxxxxx) take no column of their own.
  return static_cast<int>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

}  // namespace polyhead::cli
