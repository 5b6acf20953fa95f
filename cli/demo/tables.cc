#include "demo/tables.h"

#include <cstdio>

namespace polyhead::cli {
namespace {

double cosine(const Tensor& vectors, int64_t a, int64_t b) {
  const int64_t width = vectors.size(1);
  const auto* data = vectors.data_as<float>();
  double sum = 0;
  for (int64_t i = 0; i < width; ++i) sum += data[a * width + i] * data[b * width + i];
  return sum;
}

template <class... Arguments>
std::string formatted(const char* format, Arguments... arguments) {
  char text[120];
  std::snprintf(text, sizeof text, format, arguments...);
  return text;
}

}  // namespace

std::string similarity_text(const Tensor& vectors, const Terminal& terminal) {
  constexpr double kClose = 0.5;
  const int64_t count = vectors.size(0);
  if (count < 2) return "";
  std::string text = "     ";
  for (int64_t column = 1; column < count; ++column) {
    text += formatted("%6lld", static_cast<long long>(column));
  }
  text += "\n";
  int64_t best_a = 0, best_b = 1;
  for (int64_t row = 1; row < count; ++row) {
    text += formatted("%5lld", static_cast<long long>(row + 1));
    for (int64_t column = 0; column < row; ++column) {
      const double near = cosine(vectors, row, column);
      const std::string number = formatted("%6.2f", near);
      text += near >= kClose ? terminal.bold(number) : number;
      if (near > cosine(vectors, best_a, best_b)) best_a = column, best_b = row;
    }
    text += "\n";
  }
  return text +
         formatted("  1 means the same, 0 has nothing in common; %lld and %lld are closest.\n",
                   static_cast<long long>(best_a + 1), static_cast<long long>(best_b + 1));
}

std::string heads_text(const std::vector<std::vector<HeadSummary>>& layers,
                       const Terminal& terminal) {
  std::string text = terminal.dim("  layer  head  entropy  distance  looks at") + "\n";
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    for (size_t head = 0; head < layers[layer].size(); ++head) {
      const HeadSummary& summary = layers[layer][head];
      const std::string first = head == 0 ? formatted("%7zu", layer + 1) : std::string(7, ' ');
      text += first +
              formatted("%6zu%9.2f%10.2f  ", head + 1, summary.stats.entropy_bits,
                        summary.stats.mean_distance) +
              summary.words + "\n";
    }
  }
  return text +
         "  entropy: in bits; 0 looks at one token alone, 3 is as spread out as 8 tokens alike.\n"
         "  distance: how many tokens away the weight lies, on average.\n"
         "  looks at: the two kinds of token that get most of the weight, over all sentences; a\n"
         "  token may be of both. [CLS] and [SEP] stand at the ends of a sentence: there a head\n"
         "  rests that finds nothing to do. \"same word\": another piece of it, or it again.\n";
}

std::string clearest_heads_text(const std::vector<std::vector<HeadSummary>>& layers) {
  constexpr double kLeastShown = 0.005;  // less is written 0 %
  std::string text;
  for (size_t role = 0; role < kNumRoles; ++role) {
    size_t best_layer = 0, best_head = 0;
    const auto mass = [&](size_t layer, size_t head) { return layers[layer][head].mass[role]; };
    for (size_t layer = 0; layer < layers.size(); ++layer) {
      for (size_t head = 0; head < layers[layer].size(); ++head) {
        if (mass(layer, head) > mass(best_layer, best_head)) best_layer = layer, best_head = head;
      }
    }
    if (mass(best_layer, best_head) < kLeastShown) continue;
    text += formatted("  %-15s layer %zu, head %zu, with %.0f %% of its weight\n",
                      role_name(static_cast<Role>(role)), best_layer + 1, best_head + 1,
                      100 * mass(best_layer, best_head));
  }
  return text;
}

}  // namespace polyhead::cli
