// What stdout is: how wide, with colours or without, which characters it can show.
#pragma once

#include <string>

namespace polyhead::cli {

struct Terminal {
  int width = 80;
  bool colour = false;
  bool unicode = false;

  std::string bold(const std::string& text) const;
  std::string dim(const std::string& text) const;
};

// A terminal has its own width, else COLUMNS or 80. Colours only on a terminal without NO_COLOR;
// characters beyond ASCII only where the locale's are UTF-8.
Terminal stdout_terminal();

// A line on stderr that replaces itself, and goes at the end; nothing at all unless that is a
// terminal.
class ProgressLine {
 public:
  ProgressLine();
  explicit ProgressLine(const std::string& text) : ProgressLine() { show(text); }
  ~ProgressLine() { clear(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void show(const std::string& text);
  void clear() { show(""); }

 private:
  bool shown_;
};

}  // namespace polyhead::cli
