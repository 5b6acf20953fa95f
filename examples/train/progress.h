// How far the training is: on a terminal one line that replaces itself, elsewhere a line now and
// then.
#pragma once

#include <chrono>
#include <cstdint>

namespace train {

struct Span {
  int64_t first = 0, last = 0;  // steps done before, and at the end
  int64_t tokens_per_step = 0;
};

class Progress {
 public:
  explicit Progress(const Span& span);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // After each step.
  void show(int64_t step, double loss);

 private:
  using Clock = std::chrono::steady_clock;

  bool is_due(int64_t step) const;

  Span span_;
  bool terminal_;
  Clock::time_point begin_ = Clock::now(), shown_ = begin_;
  int64_t losses_ = 0;  // since something was shown
  double loss_sum_ = 0;
};

}  // namespace train
