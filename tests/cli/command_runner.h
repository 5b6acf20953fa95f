// Runs the built `polyhead` as a user would: another process, its streams and exit code.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <polyhead/polyhead.h>

namespace polyhead::cli {

struct Outcome {
  int code = -1;   // of exit; -1 if a signal ended it
  int signal = 0;  // that signal
  std::string out, err;
};

struct RunOptions {
  std::vector<std::pair<std::string, std::string>> environment = {};  // added or replaced
  std::vector<int> closed_streams = {};                               // of 0, 1, 2
  std::string stdout_path = {};  // instead of being collected in Outcome::out
  int64_t max_file_bytes = 0;    // 0: no limit; as `ulimit -f`
  int64_t max_memory_bytes = 0;  // as `ulimit -v`
  int interrupt_after_ms = 0;    // 0: never; SIGINT
};

// A folder of its own for each test, which is where the command runs.
class CommandTest : public testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  Outcome polyhead(const std::vector<std::string>& arguments, const RunOptions& options = {}) const;
  // Expects this code and one line on stderr, starting with "polyhead ", that contains `words`.
  void expect_error(const std::vector<std::string>& arguments, int code, const std::string& words,
                    const RunOptions& options = {}) const;

  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  bool exists(const std::string& name) const { return std::filesystem::exists(folder_ / name); }
  std::vector<std::string> files() const;  // sorted
  std::string text(const std::string& name) const;
  void write(const std::string& name, const std::string& text) const;
  // float32, values between -1 and 1 that follow from `seed`.
  Tensor save_input(const std::string& name, std::initializer_list<int64_t> shape,
                    uint64_t seed = 1) const;
  void save_bools(const std::string& name, std::initializer_list<int64_t> shape,
                  const std::vector<int>& values) const;

 private:
  std::filesystem::path folder_;
};

// Same shape, dtype and bytes.
bool same_bits(const Tensor& a, const Tensor& b);

}  // namespace polyhead::cli
