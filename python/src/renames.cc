#include "renames.h"

namespace polyhead::python {

std::string renamed(std::string text, const Renames& names) {
  for (const auto& [theirs, ours] : names) {
    const size_t at = text.find(theirs);
    if (at != std::string::npos) text.replace(at, theirs.size(), ours);
  }
  return text;
}

std::string led(const std::string& text, const char* function) {
  const std::string title = std::string(function) + ": ";
  return text.starts_with(title) ? text : title + text;
}

}  // namespace polyhead::python
