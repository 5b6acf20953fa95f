// BERT's idea of text: what it cleans away, folds and splits into words.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace polyhead::cli {

struct NormalizerOptions {
  bool clean_text = true;            // drop controls, make every blank a space
  bool handle_chinese_chars = true;  // each CJK ideograph is a word
  bool strip_accents = true;         // canonical decomposition, then no non-spacing marks
  bool lowercase = true;
};

// Ill-formed bytes become U+FFFD, which cleaning drops.
std::u32string decode_utf8(std::string_view text);
std::string encode_utf8(std::u32string_view text);

std::u32string normalize(std::u32string_view text, const NormalizerOptions& options);

// At blanks, which vanish, and around each punctuation mark, which stays as a word of its own.
std::vector<std::u32string> split_words(std::u32string_view text);

// As BERT counts it: the Unicode category P, and all of ASCII that is neither letter, digit, blank
// nor control.
bool is_punctuation(char32_t c);

}  // namespace polyhead::cli
