#include "progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>

namespace train {
namespace {

constexpr auto kBetweenFrames = std::chrono::milliseconds(100);
constexpr int64_t kLines = 20;  // of a whole training, where there is no terminal
constexpr int kWidestBar = 40;

std::string minutes(double seconds) {
  const auto whole = static_cast<long long>(std::llround(seconds));
  char text[32];
  std::snprintf(text, sizeof text, "%lld:%02lld", whole / 60, whole % 60);
  return text;
}

int terminal_columns() {
  winsize size = {};
  return ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

// Empty if there is too little room for one.
std::string bar(double done, int columns) {
  const int room = std::min(columns - 4, kWidestBar);
  if (room < 5) return "";
  const auto full = static_cast<size_t>(done * room);
  std::string drawn(1, '[');
  drawn.append(full, '#').append(static_cast<size_t>(room) - full, '.');
  return drawn + "] ";
}

}  // namespace

Progress::Progress(const Span& span) : span_(span), terminal_(::isatty(STDOUT_FILENO) != 0) {}

Progress::~Progress() {
  if (terminal_ && shown_ != begin_) std::printf("\n");
  std::fflush(stdout);
}

bool Progress::is_due(int64_t step) const {
  if (step == span_.last) return true;
  if (terminal_) return Clock::now() - shown_ >= kBetweenFrames;
  return step % std::max<int64_t>(1, span_.last / kLines) == 0;
}

void Progress::show(int64_t step, double loss) {
  loss_sum_ += loss;
  ++losses_;
  if (!is_due(step)) return;
  const std::chrono::duration<double> passed = Clock::now() - begin_;
  const double steps_per_second = static_cast<double>(step - span_.first) / passed.count();
  char text[160];
  std::snprintf(text, sizeof text, "step %lld/%lld  loss %.4f  %.1fk tokens/s  %s left",
                static_cast<long long>(step), static_cast<long long>(span_.last),
                loss_sum_ / static_cast<double>(losses_),
                steps_per_second * static_cast<double>(span_.tokens_per_step) / 1000,
                minutes(static_cast<double>(span_.last - step) / steps_per_second).c_str());
  const std::string line = text;
  if (terminal_) {
    const double done = static_cast<double>(step) / static_cast<double>(span_.last);
    const int columns = terminal_columns();  // a line that wraps could not replace itself
    const std::string drawn = bar(done, columns - static_cast<int>(line.size())) + line;
    std::printf("\r\033[K%.*s", columns - 1, drawn.c_str());
  } else {
    std::printf("%s\n", line.c_str());
  }
  std::fflush(stdout);
  shown_ = Clock::now();
  loss_sum_ = 0;
  losses_ = 0;
}

}  // namespace train
