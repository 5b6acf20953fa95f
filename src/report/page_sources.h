// The page's own files, put into the library at build time by embed.cmake.
#pragma once

namespace polyhead::page_sources {

extern const char* const kPage;    // page/page.html
extern const char* const kStyle;   // page/page.css
extern const char* const kScript;  // page/*.js, one after the other in one closure

}  // namespace polyhead::page_sources
