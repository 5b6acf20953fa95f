#include "demo/model_json.h"

#include <fstream>
#include <iterator>

namespace polyhead::cli {

nlohmann::json load_model_json(const std::string& path) {
  constexpr std::streamsize kMaxBytes = 64 << 20;
  std::ifstream file(path, std::ios::binary);
  if (!file) throw IoError(message(path, ": cannot be opened; a model folder must have it"));
  std::string text;
  for (char part[1 << 16]; file.read(part, sizeof part) || file.gcount() > 0;) {
    text.append(part, static_cast<size_t>(file.gcount()));
    if (static_cast<std::streamsize>(text.size()) > kMaxBytes) {
      throw IoError(message(path, ": more than ", kMaxBytes, " bytes; not a model's JSON file"));
    }
  }
  try {
    return nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception& problem) {
    throw IoError(message(path, ": ", problem.what()));
  }
}

}  // namespace polyhead::cli
