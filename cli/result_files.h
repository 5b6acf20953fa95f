// --out, --weights-out and --report: checked before the computation, written after it.
#pragma once

#include <functional>
#include <string>

#include "arguments.h"
#include "job.h"

namespace polyhead::cli {

class ResultFiles {
 public:
  // Throws like check_output_paths. `out` may be empty: `run` alone has it.
  ResultFiles(const ModuleArguments& arguments, const std::string& out);

  // Before the computation: throws FileError if the page of heads would be too large.
  void check_size(const Job& job) const;

  // All of them, or none. `result` has the weights that the arguments ask for. The report is what
  // `write_report` writes, else the page of heads, whose weights are computed here.
  using WriteReport = std::function<void(const std::string& path)>;
  void write(const Job& job, const Job::Result& result, const WriteReport& write_report = {}) const;

 private:
  std::vector<OutputFile> planned() const;

  ModuleArguments arguments_;
  std::string out_;
};

}  // namespace polyhead::cli
