#include "terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <iostream>

namespace polyhead::cli {
namespace {

constexpr int kNarrowest = 40, kWidest = 400;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

int width_of_stdout() {
  winsize size = {};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
    return std::clamp<int>(size.ws_col, kNarrowest, kWidest);
  }
  const std::string columns = environment("COLUMNS");
  int width = 0;
  std::from_chars(columns.data(), columns.data() + columns.size(), width);
  return width > 0 ? std::clamp(width, kNarrowest, kWidest) : Terminal().width;
}

// The first of these that is set decides, as in the C library.
bool locale_is_utf8() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    std::string locale = environment(name);
    if (locale.empty()) continue;
    std::transform(locale.begin(), locale.end(), locale.begin(),
                   [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    return locale.find("utf-8") != std::string::npos || locale.find("utf8") != std::string::npos;
  }
  return false;
}

}  // namespace

std::string Terminal::bold(const std::string& text) const {
  return colour ? "\033[1m" + text + "\033[0m" : text;
}

std::string Terminal::dim(const std::string& text) const {
  return colour ? "\033[2m" + text + "\033[0m" : text;
}

Terminal stdout_terminal() {
  Terminal terminal;
  terminal.width = width_of_stdout();
  terminal.unicode = locale_is_utf8();
  terminal.colour = ::isatty(STDOUT_FILENO) != 0 && environment("NO_COLOR").empty() &&
                    environment("TERM") != "dumb";
  return terminal;
}

ProgressLine::ProgressLine() : shown_(::isatty(STDERR_FILENO) != 0) {}

void ProgressLine::show(const std::string& text) {
  if (shown_) std::cerr << "\r\033[K" << text << std::flush;
}

}  // namespace polyhead::cli
