#include "base/escape.h"

#include <gtest/gtest.h>

namespace polyhead {
namespace {

using std::string_literals::operator""s;

TEST(Escape, ShowsWhatCouldHarmATerminal) {
  const struct {
    std::string text, shown;
  } kCases[] = {
      {"", ""},
      {"encoder.layer.0.attn", "encoder.layer.0.attn"},
      {"K\xc3\xb6rper \xe6\xb3\xa8 \xf0\x9f\x98\x80",
       "K\xc3\xb6rper \xe6\xb3\xa8 \xf0\x9f\x98\x80"},
      {"a\nb\rc\td", "a\\nb\\rc\\td"},
      {"\x1b[2Jgone", "\\x1b[2Jgone"},
      {"nul\0!"s, "nul\\x00!"},
      {"\x7f", "\\x7f"},
      {"\xc2\x9b"
       "31m",
       "\\u009b31m"},  // C1: an ANSI escape in one character
      {"\xe2\x80\xae"
       "txt.exe",
       "\\u202etxt.exe"},  // right-to-left override
      {"\xe2\x81\xa6", "\\u2066"},
      {"\xef\xbb\xbf", "\\ufeff"},
      {"\xf3\xa0\x81\x81", "\\U000e0041"},
      {"say \"x\" \\", "say \\\"x\\\" \\\\"},
      {"\xff\xc3", "\\xff\\xc3"},
      {"\xc0\xaf", "\\xc0\\xaf"},                    // overlong
      {"\xed\xa0\x80", "\\xed\\xa0\\x80"},           // surrogate
      {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"},  // above U+10ffff
      {"\xe2\x82", "\\xe2\\x82"},                    // cut off
      {"</script>", "</script>"},                    // harmless here; a page escapes for itself
  };
  for (const auto& c : kCases) EXPECT_EQ(escaped(c.text), c.shown);
}

TEST(Escape, ShortensBetweenCharacters) {
  EXPECT_EQ(escaped("abcdef", 6), "abcdef");
  EXPECT_EQ(escaped("abcdef", 5), "abcde...");
  EXPECT_EQ(escaped("ab\xc3\xb6", 3), "ab...");
  EXPECT_EQ(escaped(std::string(1 << 20, 'x'), 10), "xxxxxxxxxx...");
}

TEST(Escape, TellsUtf8AndControlCharacters) {
  EXPECT_TRUE(is_valid_utf8("gr\xc3\xbc\xc3\x9f"));
  EXPECT_FALSE(is_valid_utf8("\xc3"));
  EXPECT_FALSE(is_valid_utf8("a\x80"));
  EXPECT_TRUE(has_control_character("a\x1f"));
  EXPECT_TRUE(has_control_character("nul\0"s));
  EXPECT_TRUE(has_control_character("\xc2\x85"));
  EXPECT_FALSE(has_control_character("a b\xc2\xa0\xff"));
}

}  // namespace
}  // namespace polyhead
