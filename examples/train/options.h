// The command line.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "trainer.h"

namespace train {

struct Options {
  RunConfig run = {};
  int64_t steps = 600;
  std::string checkpoint = "train.safetensors";
  std::string page = "heads.html";
  bool resume = false;
  int64_t save_every = 100;
  int64_t threads = 0;           // 0: polyhead's own default
  double require_induction = 0;  // 0: whatever comes
  bool help = false;
};

class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

Options parse_options(int count, const char* const* arguments);
const char* usage();

}  // namespace train
