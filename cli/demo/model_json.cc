#include "demo/model_json.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace polyhead::cli {

nlohmann::json load_model_json(const std::string& path) {
  constexpr std::streamsize kMaxBytes = 64 << 20;
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) {
    throw IoError(message(path, ": no such file; a model folder must have it"));
  }
  // Opening a FIFO that nobody writes to would wait for ever.
  if (!std::filesystem::is_regular_file(status)) {
    throw IoError(message(path, ": is not a regular file"));
  }
  std::ifstream file(path, std::ios::binary);
  if (!file) throw IoError(message(path, ": cannot be read: ", std::strerror(errno)));
  std::string text;
  for (char part[1 << 16]; file.read(part, sizeof part) || file.gcount() > 0;) {
    text.append(part, static_cast<size_t>(file.gcount()));
    if (static_cast<std::streamsize>(text.size()) > kMaxBytes) {
      throw IoError(message(path, ": more than ", kMaxBytes, " bytes; not a model's JSON file"));
    }
  }
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::parse_error& problem) {
    throw IoError(message(path, ": not JSON at byte ", problem.byte));
  }
}

}  // namespace polyhead::cli
