// For the tests of this layer: files of given bytes, and what a refusal must look like.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>
#include <polyhead/error.h>

namespace polyhead {

// A folder of its own for each test, removed at the end.
class TestFolder {
 public:
  TestFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "polyhead-XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  ~TestFolder() { std::filesystem::remove_all(folder_); }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;

  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  std::string write(const std::string& name, std::string_view bytes) const {
    std::ofstream(path(name), std::ios::binary) << bytes;
    return path(name);
  }
  size_t file_count() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder_),
                                             std::filesystem::directory_iterator()));
  }

 private:
  std::filesystem::path folder_;
};

inline std::string file_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline std::string little_endian(uint64_t value, size_t bytes) {
  std::string text;
  for (size_t i = 0; i < bytes; ++i) text += static_cast<char>(value >> 8 * i & 0xff);
  return text;
}

inline std::string safetensors_bytes(const std::string& json, size_t data_bytes = 0) {
  return little_endian(json.size(), 8) + json + std::string(data_bytes, '\0');
}

inline std::string npy_bytes(const std::string& dict, size_t data_bytes = 0) {
  return std::string("\x93NUMPY\x01\x00", 8) + little_endian(dict.size() + 1, 2) + dict + "\n" +
         std::string(data_bytes, '\0');
}

// The call throws Error, and its message is one line, fit for a terminal, with all the parts.
template <class Error, class Call>
void expect_refused(const Call& call, const std::vector<std::string>& parts) {
  try {
    call();
    FAIL() << "accepted; expected a message with: " << parts.back();
  } catch (const Error& error) {
    const std::string_view text = error.what();
    for (const auto& part : parts) EXPECT_NE(text.find(part), text.npos) << part << " in " << text;
    for (const char c : text) EXPECT_TRUE(c >= ' ' && c <= '~') << "raw character in " << text;
  }
}

}  // namespace polyhead
