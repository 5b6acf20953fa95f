// Builds error messages: message("attention_forward: key: head_dim is ", 48, "; must equal ", 64).
#pragma once

#include <sstream>
#include <string>

namespace polyhead {

template <class... Parts>
std::string message(const Parts&... parts) {
  std::ostringstream text;
  text.exceptions(std::ios_base::badbit);  // bad_alloc, not half a text
  (text << ... << parts);
  return text.str();
}

}  // namespace polyhead
