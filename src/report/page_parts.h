// What every page is put together from: a template, a style, a script and blocks of data.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace polyhead {

// A page's own files, put into the library at build time by embed.cmake.
struct PageSources {
  const char* page;    // HTML with {{TITLE}}, {{POLICY}}, {{STYLE}}, {{DATA}} and {{SCRIPT}}
  const char* style;   // CSS
  const char* script;  // one closure
};

std::string json_strings(const std::vector<std::string>& list);

// Data as base64: whatever the bytes are, nothing in them can end the script element.
std::string data_block(const std::string& id, std::string_view bytes);

// The whole page. Its Content-Security-Policy allows the script, by hash, and nothing else.
std::string assemble_page(const PageSources& sources, std::string_view title,
                          const std::string& data_blocks);

}  // namespace polyhead
