#include "report/page_parts.h"

#include <utility>

#include "base/message.h"
#include "report/sha256.h"
#include "report/text_encoding.h"

namespace polyhead {
namespace {

// The template with each {{NAME}} replaced; what is put in is not looked at again.
std::string fill(std::string_view page,
                 const std::vector<std::pair<std::string_view, std::string>>& values) {
  std::string out;
  for (size_t at = page.find("{{"); at != page.npos; at = page.find("{{")) {
    const size_t end = page.find("}}", at);
    out += page.substr(0, at);
    for (const auto& [name, value] : values) {
      if (name == page.substr(at + 2, end - at - 2)) out += value;
    }
    page.remove_prefix(end + 2);
  }
  return out + std::string(page);
}

std::string security_policy(std::string_view script) {
  const Sha256::Digest hash = sha256(script);
  return message(
      "default-src 'none'; script-src 'sha256-", base64(hash.data(), hash.size()),
      "'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'");
}

}  // namespace

std::string json_strings(const std::vector<std::string>& list) {
  std::string out = "[";
  for (const std::string& text : list) {
    if (out.size() > 1) out += ",";
    out += json_string(text);
  }
  return out + "]";
}

std::string data_block(const std::string& id, std::string_view bytes) {
  return message("<script type=\"application/octet-stream\" id=\"", id, "\">",
                 base64(bytes.data(), bytes.size()), "</script>\n");
}

std::string assemble_page(const PageSources& sources, std::string_view title,
                          const std::string& data_blocks) {
  return fill(sources.page, {{"TITLE", html_text(title)},
                             {"POLICY", security_policy(sources.script)},
                             {"STYLE", sources.style},
                             {"DATA", data_blocks},
                             {"SCRIPT", sources.script}});
}

}  // namespace polyhead
