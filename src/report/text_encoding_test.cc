#include "report/text_encoding.h"

#include <gtest/gtest.h>

namespace polyhead {
namespace {

std::string base64_of(std::string_view text) { return base64(text.data(), text.size()); }

TEST(Base64, PaddingOfEachLength) {
  EXPECT_EQ(base64_of(""), "");
  EXPECT_EQ(base64_of("f"), "Zg==");
  EXPECT_EQ(base64_of("fo"), "Zm8=");
  EXPECT_EQ(base64_of("foo"), "Zm9v");
  EXPECT_EQ(base64_of("\xff\xfe\xfd\xfc"), "//79/A==");
}

TEST(WellFormedUtf8, KeepsGoodAndReplacesBad) {
  const std::string good = "a\u00e9\u4e2d\U0001f600";
  EXPECT_EQ(well_formed_utf8(good), good);
  EXPECT_EQ(well_formed_utf8("a\xff z"), "a\ufffd z");
  EXPECT_EQ(well_formed_utf8("\xc0\x80"), "\ufffd");          // overlong
  EXPECT_EQ(well_formed_utf8("\xed\xa0\x80x"), "\ufffdx");    // surrogate
  EXPECT_EQ(well_formed_utf8("\xf4\x90\x80\x80"), "\ufffd");  // above U+10FFFF
  EXPECT_EQ(well_formed_utf8("\xe4\xb8"), "\ufffd");          // cut short
}

TEST(JsonString, EscapesWhatMustBe) {
  EXPECT_EQ(json_string("a\"b\\c\n\x7f"), "\"a\\\"b\\\\c\\u000a\\u007f\"");
  EXPECT_EQ(json_string(std::string_view("\0", 1)), "\"\\u0000\"");
}

TEST(HtmlText, LeavesNothingThatMarksUp) {
  EXPECT_EQ(html_text("<a href='x' b=\"y\">&"), "&lt;a href=&#39;x&#39; b=&quot;y&quot;&gt;&amp;");
}

}  // namespace
}  // namespace polyhead
