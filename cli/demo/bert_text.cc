#include "demo/bert_text.h"

#include <utf8proc.h>

#include <algorithm>
#include <iterator>

namespace polyhead::cli {
namespace {

struct Range {
  char32_t first, last;
};

template <size_t N>
bool in_ranges(const Range (&ranges)[N], char32_t c) {
  const Range* at =
      std::upper_bound(std::begin(ranges), std::end(ranges), c,
                       [](char32_t x, const Range& range) { return x < range.first; });
  return at != std::begin(ranges) && c <= std::prev(at)->last;
}

// Where marks, punctuation and format controls came to Unicode after version 8, whose tables the
// common tokenizer still has: to it they are none of these. Found by asking that tokenizer (0.23)
// about every code point; tests/parity/test_tokenizer.py asks again.
constexpr Range kAfterUnicode8[] = {
    {0x061D, 0x061D},   {0x07FD, 0x07FD},   {0x0890, 0x08E2},   {0x09FD, 0x09FE},
    {0x0A76, 0x0A76},   {0x0AFA, 0x0AFF},   {0x0B55, 0x0B55},   {0x0C04, 0x0C3C},
    {0x0C77, 0x0C77},   {0x0C84, 0x0C84},   {0x0D00, 0x0D00},   {0x0D3B, 0x0D3C},
    {0x0D81, 0x0D81},   {0x0EBA, 0x0EBA},   {0x0ECE, 0x0ECE},   {0x180F, 0x1886},
    {0x1ABF, 0x1ACE},   {0x1B7D, 0x1B7E},   {0x1DF6, 0x1DFB},   {0x2E43, 0x2E5D},
    {0xA82C, 0xA82C},   {0xA8C5, 0xA8C5},   {0xA8FF, 0xA8FF},   {0xA9BD, 0xA9BD},
    {0x10D24, 0x10F89}, {0x11070, 0x11074}, {0x110C2, 0x110CD}, {0x111C9, 0x111C9},
    {0x111CF, 0x111CF}, {0x1123E, 0x11241}, {0x1133B, 0x1133B}, {0x11438, 0x1145E},
    {0x11660, 0x1166C}, {0x116B9, 0x116B9}, {0x1182F, 0x11FFF}, {0x12FF1, 0x13455},
    {0x16E97, 0x16F4F}, {0x16FE2, 0x16FE4}, {0x1CF00, 0x1CF46}, {0x1E000, 0x1E4EF},
    {0x1E944, 0x1E95F},
};

// As the common tokenizer has it: 2B920 for 2B820, and no extension after E.
constexpr Range kIdeographs[] = {
    {0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},   {0x20000, 0x2A6DF},
    {0x2A700, 0x2B81F}, {0x2B920, 0x2CEAF}, {0x2F800, 0x2FA1F},
};

utf8proc_category_t category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

bool is_blank(char32_t c) {
  switch (category(c)) {
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return true;
    default:
      return (c >= U'\t' && c <= U'\r') || c == 0x85;
  }
}

bool is_control(char32_t c) {
  if (c == U'\t' || c == U'\n' || c == U'\r') return false;  // blanks
  switch (category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CS:
      return true;
    case UTF8PROC_CATEGORY_CF:
      return !in_ranges(kAfterUnicode8, c);
    default:
      return false;
  }
}

bool is_nonspacing_mark(char32_t c) {
  constexpr char32_t kTagalogPamudpod = 0x1734;  // became a spacing mark later
  return c == kTagalogPamudpod ||
         (category(c) == UTF8PROC_CATEGORY_MN && !in_ranges(kAfterUnicode8, c));
}

std::u32string cleaned(std::u32string_view text) {
  std::u32string out;
  for (const char32_t c : text) {
    if (c == 0xFFFD || is_control(c)) continue;
    out += is_blank(c) ? U' ' : c;
  }
  return out;
}

std::u32string with_ideographs_apart(std::u32string_view text) {
  std::u32string out;
  for (const char32_t c : text) {
    if (in_ranges(kIdeographs, c)) {
      out += {U' ', c, U' '};
    } else {
      out += c;
    }
  }
  return out;
}

std::u32string without_accents(std::u32string_view text) {
  const std::string utf8 = encode_utf8(text);
  // A character decomposes into four at most; the library reports how many it needs if not.
  std::vector<utf8proc_int32_t> points(4 * text.size() + 1);
  const auto bytes = reinterpret_cast<const utf8proc_uint8_t*>(utf8.data());
  const auto size = static_cast<utf8proc_ssize_t>(utf8.size());
  utf8proc_ssize_t count = 0;
  for (;;) {
    count = utf8proc_decompose(bytes, size, points.data(),
                               static_cast<utf8proc_ssize_t>(points.size()), UTF8PROC_DECOMPOSE);
    if (count <= static_cast<utf8proc_ssize_t>(points.size())) break;
    points.resize(static_cast<size_t>(count));
  }
  std::u32string out;
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    const auto c = static_cast<char32_t>(points[static_cast<size_t>(i)]);
    if (!is_nonspacing_mark(c)) out += c;
  }
  return out;
}

std::u32string lowered(std::u32string_view text) {
  constexpr char32_t kDottedI = 0x130, kDotAbove = 0x307;  // the one letter that lowers to two
  std::u32string out;
  for (const char32_t c : text) {
    out += static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
    if (c == kDottedI) out += kDotAbove;
  }
  return out;
}

}  // namespace

std::u32string decode_utf8(std::string_view text) {
  std::u32string out;
  while (!text.empty()) {
    utf8proc_int32_t point = -1;
    const utf8proc_ssize_t length =
        utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                         static_cast<utf8proc_ssize_t>(text.size()), &point);
    out += length > 0 ? static_cast<char32_t>(point) : char32_t{0xFFFD};
    text.remove_prefix(length > 0 ? static_cast<size_t>(length) : 1);
  }
  return out;
}

std::string encode_utf8(std::u32string_view text) {
  std::string out;
  for (const char32_t c : text) {
    utf8proc_uint8_t bytes[4];
    const utf8proc_ssize_t length = utf8proc_encode_char(static_cast<utf8proc_int32_t>(c), bytes);
    out.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length));
  }
  return out;
}

std::u32string normalize(std::u32string_view text, const NormalizerOptions& options) {
  std::u32string out(text);
  if (options.clean_text) out = cleaned(out);
  if (options.handle_chinese_chars) out = with_ideographs_apart(out);
  if (options.strip_accents) out = without_accents(out);
  if (options.lowercase) out = lowered(out);
  return out;
}

bool is_punctuation(char32_t c) {
  if (c < 0x80) {
    return (c >= U'!' && c <= U'/') || (c >= U':' && c <= U'@') || (c >= U'[' && c <= U'`') ||
           (c >= U'{' && c <= U'~');
  }
  // Punctuation in Unicode 8, something else today.
  constexpr char32_t kCanadianChiSign = 0x166D, kSharadaSandhiMark = 0x111C9;
  if (c == kCanadianChiSign || c == kSharadaSandhiMark) return true;
  const utf8proc_category_t kind = category(c);
  return kind >= UTF8PROC_CATEGORY_PC && kind <= UTF8PROC_CATEGORY_PO &&
         !in_ranges(kAfterUnicode8, c);
}

std::vector<std::u32string> split_words(std::u32string_view text) {
  std::vector<std::u32string> words;
  bool open = false;  // the last word may grow
  for (const char32_t c : text) {
    if (is_blank(c)) {
      open = false;
    } else if (is_punctuation(c)) {
      words.emplace_back(1, c);
      open = false;
    } else if (open) {
      words.back() += c;
    } else {
      words.emplace_back(1, c);
      open = true;
    }
  }
  return words;
}

}  // namespace polyhead::cli
