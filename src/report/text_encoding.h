// The text forms that the page is made of. Whatever goes in, what comes out is plain and inert.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace polyhead {

std::string base64(const void* data, size_t bytes);  // RFC 4648, padded

// Each ill-formed run of UTF-8 becomes one U+FFFD; the rest is unchanged.
std::string well_formed_utf8(std::string_view text);

// As a JSON string, quotes included; control characters escaped, ill-formed UTF-8 replaced.
std::string json_string(std::string_view text);

// As text or attribute of HTML: & < > " ' escaped.
std::string html_text(std::string_view text);

}  // namespace polyhead
