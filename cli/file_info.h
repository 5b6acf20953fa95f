// `polyhead info FILE`: what a safetensors or npy file holds.
#pragma once

#include <iosfwd>
#include <string>

namespace polyhead::cli {

// Told apart by content. Throws FileError, or the readers' exceptions, before anything is printed.
void print_file_info(const std::string& path, std::ostream& out);

}  // namespace polyhead::cli
