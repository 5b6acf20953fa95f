#include "base/escape.h"

#include <algorithm>
#include <cstdint>

namespace polyhead {
namespace {

struct CodePoint {
  uint32_t value;
  size_t bytes;  // 0: the byte at this place starts no well-formed character
};

bool is_continuation(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

// The character at the start of a non-empty text. Overlong forms, surrogates and values above
// U+10ffff are not well-formed.
CodePoint decode(std::string_view text) {
  const auto first = static_cast<unsigned char>(text[0]);
  if (first < 0x80) return {first, 1};
  const size_t bytes = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < bytes) return {first, 0};
  uint32_t value = first & (0x7fu >> bytes);
  for (size_t i = 1; i < bytes; ++i) {
    if (!is_continuation(text[i])) return {first, 0};
    value = value << 6 | (static_cast<unsigned char>(text[i]) & 0x3f);
  }
  constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool is_surrogate = value >= 0xd800 && value <= 0xdfff;
  if (value < kSmallest[bytes] || value > 0x10ffff || is_surrogate) return {first, 0};
  return {value, bytes};
}

bool is_control(uint32_t c) { return c < 0x20 || (c >= 0x7f && c <= 0x9f); }

// Characters that take no ink of their own but change how, or whether, others are seen.
bool is_invisible(uint32_t c) {
  constexpr struct {
    uint32_t first, last;
  } kRanges[] = {{0xad, 0xad},         // soft hyphen
                 {0x61c, 0x61c},       // Arabic letter mark
                 {0x180e, 0x180e},     // vowel separator
                 {0x200b, 0x200f},     // zero widths, direction marks
                 {0x2028, 0x202e},     // line separators, direction embeddings and overrides
                 {0x2060, 0x206f},     // joiners, direction isolates
                 {0xfeff, 0xfeff},     // byte order mark
                 {0xfff9, 0xfffb},     // annotations
                 {0xe0000, 0xe007f}};  // tags
  return std::any_of(std::begin(kRanges), std::end(kRanges),
                     [c](const auto& range) { return c >= range.first && c <= range.last; });
}

std::string hex(uint32_t value, int digits) {
  std::string text;
  for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4) {
    text += "0123456789abcdef"[value >> shift & 0xf];
  }
  return text;
}

std::string spelled_out(uint32_t c) {
  if (c == '\n') return "\\n";
  if (c == '\r') return "\\r";
  if (c == '\t') return "\\t";
  if (c < 0x80) return "\\x" + hex(c, 2);
  return c > 0xffff ? "\\U" + hex(c, 8) : "\\u" + hex(c, 4);
}

}  // namespace

std::string escaped(std::string_view text, size_t max_bytes) {
  std::string shown;
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = decode(text.substr(i));
    const size_t bytes = std::max<size_t>(c.bytes, 1);
    if (i + bytes > max_bytes) return shown + "...";
    if (c.bytes == 0) {
      shown += "\\x" + hex(c.value, 2);
    } else if (is_control(c.value) || is_invisible(c.value)) {
      shown += spelled_out(c.value);
    } else {
      if (c.value == '"' || c.value == '\\') shown += '\\';
      shown += text.substr(i, bytes);
    }
    i += bytes;
  }
  return shown;
}

std::string in_quotes(std::string_view text, size_t max_bytes) {
  std::string shown(1, '"');
  shown += escaped(text, max_bytes);
  shown += '"';
  return shown;
}

bool is_valid_utf8(std::string_view text) {
  while (!text.empty()) {
    const CodePoint c = decode(text);
    if (c.bytes == 0) return false;
    text.remove_prefix(c.bytes);
  }
  return true;
}

bool has_control_character(std::string_view text) {
  while (!text.empty()) {
    const CodePoint c = decode(text);
    if (c.bytes != 0 && is_control(c.value)) return true;
    text.remove_prefix(std::max<size_t>(c.bytes, 1));
  }
  return false;
}

}  // namespace polyhead
