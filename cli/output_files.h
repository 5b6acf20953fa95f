// The files one command writes: all of them appear, whole, or none does.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace polyhead::cli {

struct OutputFile {
  std::string flag;  // "--out", for messages
  std::string path;
  std::function<void(const std::string& path)> write;
};

// Before the computation: throws ResourceError unless each path can be written (its folder is there
// and writable; what it replaces is a regular file), UsageError if two of them, or one of them and
// an input, are the same file.
void check_output_paths(const std::vector<OutputFile>& files,
                        const std::vector<std::string>& inputs);

// Writes each beside its target, then renames them all; undoes what it did if one step fails.
// Throws ResourceError.
void write_output_files(const std::vector<OutputFile>& files);

}  // namespace polyhead::cli
