// Makes names from outside (tensor names, paths, tokens) fit for one line of a terminal or a log.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace polyhead {

// The text with everything that could move a cursor, hide or reorder characters spelled out:
// control characters and ANSI escapes (\n, \x1b), invisible and direction marks (\u202e), bytes
// that are not UTF-8 (\xff), and the quote and backslash themselves. Other UTF-8 stays as it is.
// Longer texts end in "..." after max_bytes of input, never within a character.
std::string escaped(std::string_view text, size_t max_bytes = std::string_view::npos);

// The same between double quotes. Not `quoted`: calls with a std::string would find std::quoted.
std::string in_quotes(std::string_view text, size_t max_bytes = std::string_view::npos);

bool is_valid_utf8(std::string_view text);
bool has_control_character(std::string_view text);  // NUL..1f, 7f, and U+0080..U+009f

}  // namespace polyhead
