// A folder with inputs and modules, and the command run on them.
#pragma once

#include <string>
#include <vector>

#include "command_runner.h"
#include "explain_check.h"

namespace polyhead::cli {

struct Files {
  std::string weights, query, key = "", value = "";
};

// q.npy [2, 5, 8], k.npy and v.npy [2, 7, 8].
class Explain : public CommandTest {
 protected:
  void SetUp() override;

  // A module with random biases as `name`; 8 features and 2 heads unless `config` says otherwise.
  void save_mha(const std::string& name, MultiheadAttention::Config config) const;
  void save_scratch(const std::string& name, HeadWidth width) const;

  // Masks are left to the test; `sequence` is the dimension of the positions.
  Given given(const Files& files, int64_t num_heads = 2, int sequence = 1) const;

  // Runs `explain --report r.html` and `run`, and compares all that they gave.
  void expect_explained(const Files& files, const std::vector<std::string>& flags,
                        const Given& given);

 private:
  Numbers first_item(const std::string& name, int sequence) const;
  std::string run(const Files& files, const std::vector<std::string>& flags) const;
};

}  // namespace polyhead::cli
