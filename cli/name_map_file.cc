#include "name_map_file.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/escape.h"
#include "base/message.h"
#include "errors.h"

namespace polyhead::cli {
namespace {

constexpr std::streamsize kMaxBytes = 1 << 20;

// Takes the one shape that is allowed; anything else stops the parser with what is wrong.
class MapReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  NameMap names;
  std::string problem;

  bool start_object(std::size_t) override { return depth_++ == 0 || stop(); }
  bool end_object() override { return true; }
  bool key(string_t& name) override {
    key_ = name;
    if (!names.contains(name)) return true;
    problem = message("\"", escaped(name), "\" comes twice");
    return false;
  }
  bool string(string_t& name) override {
    if (depth_ != 1) return stop();
    names[key_] = name;
    return true;
  }
  bool null() override { return stop(); }
  bool boolean(bool) override { return stop(); }
  bool number_integer(number_integer_t) override { return stop(); }
  bool number_unsigned(number_unsigned_t) override { return stop(); }
  bool number_float(number_float_t, const string_t&) override { return stop(); }
  bool binary(binary_t&) override { return stop(); }
  bool start_array(std::size_t) override { return stop(); }
  bool end_array() override { return stop(); }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::json::exception&) override {
    problem = "not JSON at byte " + std::to_string(position);
    return false;
  }

 private:
  bool stop() {
    problem = "need an object of strings, {\"name in the file\": \"in_proj_weight\", ...}";
    return false;
  }

  int depth_ = 0;
  std::string key_;
};

std::string read_text(const std::string& path) {
  const auto fail = [&](const std::string& what) {
    throw FileError("--map " + escaped(path) + ": " + what);
  };
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) fail("no such file");
  if (!std::filesystem::is_regular_file(status)) fail("is not a regular file");
  std::ifstream file(path, std::ios::binary);
  if (!file) fail(std::string("cannot be read: ") + std::strerror(errno));
  std::string text(kMaxBytes + 1, '\0');
  file.read(text.data(), kMaxBytes + 1);
  if (file.gcount() > kMaxBytes) fail("is larger than 1 MiB");
  if (file.bad()) fail("cannot be read");
  text.resize(static_cast<size_t>(file.gcount()));
  return text;
}

}  // namespace

NameMap read_name_map(const std::string& map) {
  if (map == "bert") return name_maps::bert();
  if (map == "vit") return name_maps::vit();
  if (map == "llama") return name_maps::llama();
  if (!map.ends_with(".json")) {
    throw UsageError("--map: got \"" + escaped(map) + "\"; need bert|vit|llama|NAMES.json");
  }
  MapReader reader;
  if (!nlohmann::json::sax_parse(read_text(map), &reader)) {
    throw FileError("--map " + escaped(map) + ": " + reader.problem);
  }
  return reader.names;
}

}  // namespace polyhead::cli
