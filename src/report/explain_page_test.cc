#include "report/explain_page.h"

#include <gtest/gtest.h>
#include <polyhead/error.h>
#include "report/page_sources.h"
#include "report/sha256.h"
#include "report/text_encoding.h"

namespace polyhead {
namespace {

ExplainPage page_of(const std::string& title) {
  return {.title = title,
          .subtitle = "1 query",
          .fast_path = "baseline",
          .matrices = {{.name = "out", .shape = {1, 2}, .numbers = {0.5, -0.0}}}};
}

TEST(ExplainPage, HostileTextNeverReachesTheMarkup) {
  ExplainPage page = page_of("</title><script>alert(1)</script>");
  page.subtitle = "{{SCRIPT}}";
  page.masks = {"</script><img src=x onerror=alert(2)>"};
  page.facts = {"\xff\xfe\u202e"};
  const std::string html = explain_html(page);
  EXPECT_EQ(html.find("<script>alert"), std::string::npos);
  EXPECT_EQ(html.find("<img"), std::string::npos);
  EXPECT_EQ(html.find("{{"), std::string::npos);
}

TEST(ExplainPage, ThePolicyNamesTheScriptThatTheFileHolds) {
  const std::string html = explain_html(page_of("a"));
  const size_t begin = html.rfind("<script>") + 8;
  const std::string script = html.substr(begin, html.rfind("</script>") - begin);
  EXPECT_EQ(script, page_sources::kExplain.script);
  const Sha256::Digest digest = sha256(script);
  EXPECT_NE(html.find("script-src 'sha256-" + base64(digest.data(), digest.size()) + "'"),
            std::string::npos);
  EXPECT_NE(html.find("default-src 'none'"), std::string::npos);
}

TEST(ExplainPage, NumbersAreLittleEndianDoubles) {
  const std::string bytes("\0\0\0\0\0\0\xE0\x3F\0\0\0\0\0\0\0\x80", 16);
  EXPECT_NE(explain_html(page_of("a")).find("id=\"m-out\">" + base64(bytes.data(), 16) + "<"),
            std::string::npos);
}

TEST(ExplainPage, NumbersMustFillTheShape) {
  ExplainPage page = page_of("a");
  page.matrices[0].shape = {3, 2};
  EXPECT_THROW(explain_html(page), InvalidArgument);
}

}  // namespace
}  // namespace polyhead
