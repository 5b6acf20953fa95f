#include "module/module_metadata.h"

#include <charconv>

#include <polyhead/error.h>
#include "base/escape.h"
#include "base/message.h"

namespace polyhead {
namespace {

constexpr const char* kFlags[] = {"false", "true"};
constexpr const char* kPairs[] = {"", "halves", "interleaved"};
constexpr const char* kScalings[] = {"none", "linear", "ntk", "llama3"};

// The shortest text that reads back as the same number.
std::string number_text(double x) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, x).ptr};
}

class Statements {
 public:
  Statements(const Metadata& metadata, const std::string& context)
      : metadata_(metadata), context_(context) {}

  bool has(const char* key) const { return metadata_.contains(key); }

  template <class Number>
  void number(const char* key, Number* to) const {
    if (!has(key)) return;
    const std::string& text = metadata_.at(key);
    const char* last = text.data() + text.size();
    const auto [end, error] = std::from_chars(text.data(), last, *to);
    if (error != std::errc() || end != last) fail(key, "a number");
  }

  template <class Enum, size_t n>
  void word(const char* key, const char* const (&words)[n], Enum* to) const {
    if (!has(key)) return;
    std::string known;
    for (size_t i = 0; i < n; ++i) {
      if (*words[i] == 0) continue;
      if (metadata_.at(key) == words[i]) {
        *to = static_cast<Enum>(i);
        return;
      }
      known += (known.empty() ? "" : ", ") + std::string(words[i]);
    }
    fail(key, "one of " + known);
  }

 private:
  [[noreturn]] void fail(const char* key, const std::string& need) const {
    throw InvalidArgument(message(context_, key, ": __metadata__ has \"",
                                  escaped(metadata_.at(key), 40), "\"; must be ", need));
  }

  const Metadata& metadata_;
  const std::string& context_;
};

void add_rope(const Rope& rope, Metadata& metadata) {
  metadata["rope_pairs"] = kPairs[static_cast<size_t>(rope.pairs)];
  metadata["rope_base"] = number_text(rope.base);
  metadata["rope_rotary_dim"] = std::to_string(rope.rotary_dim);
  if (rope.scaling == RopeScaling::kNone) return;
  metadata["rope_scaling"] = kScalings[static_cast<size_t>(rope.scaling)];
  metadata["rope_factor"] = number_text(rope.factor);
  if (rope.scaling != RopeScaling::kLlama3) return;
  metadata["rope_low_freq_factor"] = number_text(rope.low_freq_factor);
  metadata["rope_high_freq_factor"] = number_text(rope.high_freq_factor);
  metadata["rope_original_length"] = std::to_string(rope.original_length);
}

}  // namespace

Metadata metadata_of(const MultiheadAttention::Config& config) {
  Metadata metadata = {{"num_heads", std::to_string(config.num_heads)},
                       {"batch_first", kFlags[config.layout == Layout::kBatchFirst]},
                       {"add_zero_attn", kFlags[config.add_zero_attn]},
                       {"dropout", number_text(config.dropout)}};
  if (config.num_kv_heads != config.num_heads) {
    metadata["num_kv_heads"] = std::to_string(config.num_kv_heads);
  }
  if (config.qk_norm) metadata["qk_norm_eps"] = number_text(config.qk_norm_eps);
  if (config.rope.pairs != RopePairs::kNone) add_rope(config.rope, metadata);
  return metadata;
}

Rope stated_rope(const Metadata& metadata, const std::string& context) {
  const Statements stated(metadata, context);
  Rope rope;
  stated.word("rope_pairs", kPairs, &rope.pairs);
  if (rope.pairs == RopePairs::kNone) return rope;
  stated.number("rope_base", &rope.base);
  stated.number("rope_rotary_dim", &rope.rotary_dim);
  stated.word("rope_scaling", kScalings, &rope.scaling);
  stated.number("rope_factor", &rope.factor);
  stated.number("rope_low_freq_factor", &rope.low_freq_factor);
  stated.number("rope_high_freq_factor", &rope.high_freq_factor);
  stated.number("rope_original_length", &rope.original_length);
  return rope;
}

std::optional<double> stated_number(const Metadata& metadata, const char* key,
                                    const std::string& context) {
  const Statements stated(metadata, context);
  if (!stated.has(key)) return {};
  double number = 0;
  stated.number(key, &number);
  return number;
}

std::optional<bool> stated_flag(const Metadata& metadata, const char* key,
                                const std::string& context) {
  const Statements stated(metadata, context);
  if (!stated.has(key)) return {};
  bool flag = false;
  stated.word(key, kFlags, &flag);
  return flag;
}

}  // namespace polyhead
