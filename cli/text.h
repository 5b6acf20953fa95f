// Small things about text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace polyhead::cli {

std::string replaced(std::string text, std::string_view from, std::string_view to);
// A message of the library starts with its function, "load_npy: q.npy: ..."; the user knows flags
// and files.
std::string without_function(const std::string& message);
// The choice nearest to `word`, if it is near enough to be what was meant; else empty.
std::string nearest(const std::string& word, const std::vector<std::string>& choices);
std::string counted(int64_t count, const char* one, const char* many);  // "1 query", "5 queries"
// Columns `text` takes on a terminal: one per code point.
int display_width(std::string_view text);

}  // namespace polyhead::cli
