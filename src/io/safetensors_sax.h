// Receives the JSON events of a safetensors header and keeps what a header may hold; the first
// thing that it may not hold throws IoError. nlohmann::json::sax_parse calls it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "io/safetensors_header.h"

namespace polyhead {

class SafetensorsSax {
 public:
  SafetensorsSax(const ByteSource& source, SafetensorsHeader* header)
      : source_(source), header_(*header) {}

  // The events. Each returns true or throws.
  bool null() { unexpected("null"); }
  bool boolean(bool value) { unexpected(value ? "true" : "false"); }
  bool number_integer(int64_t value) { unexpected(value == 0 ? "-0" : std::to_string(value)); }
  bool number_float(double, const std::string& text) { unexpected(text); }
  bool number_unsigned(uint64_t value);
  bool string(const std::string& value);
  template <class Binary>
  bool binary(const Binary&) {
    unexpected("binary data");
  }
  bool start_object(size_t);
  bool end_object();
  bool start_array(size_t);
  bool end_array();
  bool key(const std::string& name);
  template <class Exception>
  bool parse_error(size_t position, const std::string& last_token, const Exception&) {
    bad_json(position, last_token);
  }

 private:
  enum class Place { kStart, kTop, kEntry, kShape, kOffsets, kMetadata };
  enum Field : unsigned { kNone = 0, kDtype = 1, kShapeField = 2, kOffsetsField = 4 };

  [[noreturn]] void unexpected(std::string_view got) const;
  [[noreturn]] void bad_json(size_t position, const std::string& last_token) const;
  template <class... Parts>
  [[noreturn]] void fail_entry(const Parts&... parts) const {
    source_.fail(shown_tensor(name_), ": ", parts...);
  }
  void tensor_name(const std::string& name);
  void metadata_name(const std::string& name);
  void field_name(const std::string& name);
  void finish_entry();

  const ByteSource& source_;
  SafetensorsHeader& header_;
  Place place_ = Place::kStart;
  std::string name_;  // of the tensor, or kMetadata's
  std::string metadata_key_;
  unsigned field_ = kNone;  // whose value comes next
  unsigned fields_seen_ = kNone;
  bool metadata_seen_ = false;
  SafetensorsEntry entry_;
  std::vector<int64_t> numbers_;  // of the array being read
};

}  // namespace polyhead
