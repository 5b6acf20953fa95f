// --out, --weights-out and --report: checked before the computation, written after it.
#pragma once

#include <string>

#include "arguments.h"
#include "job.h"

namespace polyhead::cli {

class ResultFiles {
 public:
  // Throws like check_output_paths. `out` may be empty: `run` alone has it.
  ResultFiles(const ModuleArguments& arguments, const std::string& out);

  // Before the computation: throws FileError if the report would be too large for a page.
  void check_size(const Job& job) const;

  // All of them, or none. `result` has the weights that the arguments ask for; the report's are
  // computed here.
  void write(const Job& job, const Job::Result& result) const;

 private:
  std::vector<OutputFile> planned() const;

  ModuleArguments arguments_;
  std::string out_;
};

}  // namespace polyhead::cli
