#include "io/safetensors_sax.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/escape.h"
#include "io/safetensors_dtype.h"

namespace polyhead {
namespace {

constexpr std::string_view kMetadataName = "__metadata__";
constexpr size_t kShownBytes = 200;  // of a name or a value, in messages

std::string shown_name(std::string_view text) { return in_quotes(text, kShownBytes); }

}  // namespace

std::string shown_tensor(std::string_view name) { return message("tensor ", shown_name(name)); }

void SafetensorsSax::unexpected(std::string_view got) const {
  const std::string shown = escaped(got, kShownBytes);
  switch (place_) {
    case Place::kStart:
      break;
    case Place::kTop:
      if (name_ == kMetadataName) {
        source_.fail("__metadata__: got ", shown, "; need an object of strings");
      }
      fail_entry("got ", shown, "; need an object of dtype, shape and data_offsets");
    case Place::kEntry:
      if (field_ == kDtype) fail_entry("dtype: got ", shown, "; need a string");
      fail_entry(field_ == kShapeField ? "shape" : "data_offsets", ": got ", shown,
                 "; need an array of whole numbers");
    case Place::kShape:
    case Place::kOffsets:
      fail_entry(place_ == Place::kShape ? "shape" : "data_offsets", ": element ", numbers_.size(),
                 " is ", shown, "; need a whole number from 0 to 2^63 - 1, in digits only");
    case Place::kMetadata:
      source_.fail("__metadata__: ", shown_name(metadata_key_), ": got ", shown, "; need a string");
  }
  source_.fail("header: got ", shown, "; need an object");
}

void SafetensorsSax::bad_json(size_t position, const std::string& last_token) const {
  constexpr size_t kTail = 40;  // where it went wrong is at the token's end
  const std::string_view token(last_token);
  source_.fail("header: not valid JSON at its byte ", position, ", after ",
               in_quotes(token.substr(token.size() - std::min(token.size(), kTail))));
}

bool SafetensorsSax::number_unsigned(uint64_t value) {
  const bool in_array = place_ == Place::kShape || place_ == Place::kOffsets;
  if (!in_array || value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    unexpected(std::to_string(value));
  }
  if (place_ == Place::kShape && numbers_.size() == kMaxFileRank) {
    fail_entry("shape: has more than ", kMaxFileRank, " dimensions; at most as many are read");
  }
  if (place_ == Place::kOffsets && numbers_.size() == 2) {
    fail_entry("data_offsets: has more than 2 numbers; need [begin, end]");
  }
  numbers_.push_back(static_cast<int64_t>(value));
  return true;
}

bool SafetensorsSax::string(const std::string& value) {
  if (place_ == Place::kMetadata) {
    header_.metadata.emplace(metadata_key_, value);
  } else if (place_ == Place::kEntry && field_ == kDtype) {
    if (find_safetensors_dtype(value) == nullptr) {
      fail_entry("dtype: got ", shown_name(value),
                 "; need one that the format knows, such as \"F32\"");
    }
    entry_.dtype = value;
  } else {
    unexpected("a string");
  }
  return true;
}

bool SafetensorsSax::start_object(size_t) {
  if (place_ == Place::kStart) {
    place_ = Place::kTop;
  } else if (place_ == Place::kTop && name_ == kMetadataName) {
    place_ = Place::kMetadata;
  } else if (place_ == Place::kTop) {
    place_ = Place::kEntry;
    fields_seen_ = kNone;
    entry_ = {};
  } else {
    unexpected("an object");
  }
  return true;
}

bool SafetensorsSax::end_object() {
  if (place_ == Place::kEntry) finish_entry();
  place_ = Place::kTop;
  return true;
}

bool SafetensorsSax::start_array(size_t) {
  if (place_ != Place::kEntry || field_ == kDtype) unexpected("an array");
  place_ = field_ == kShapeField ? Place::kShape : Place::kOffsets;
  numbers_.clear();
  return true;
}

bool SafetensorsSax::end_array() {
  if (place_ == Place::kShape) {
    entry_.shape.assign(numbers_.begin(), numbers_.end());  // exact size: there may be millions
  } else {
    if (numbers_.size() != 2) {
      fail_entry("data_offsets: has ", numbers_.size(), " numbers; need [begin, end]");
    }
    entry_.begin = numbers_[0];
    entry_.end = numbers_[1];
  }
  place_ = Place::kEntry;
  return true;
}

bool SafetensorsSax::key(const std::string& name) {
  if (place_ == Place::kMetadata) {
    metadata_name(name);
  } else if (place_ == Place::kEntry) {
    field_name(name);
  } else {
    tensor_name(name);
  }
  return true;
}

void SafetensorsSax::tensor_name(const std::string& name) {
  name_ = name;
  if (name == kMetadataName) {
    if (std::exchange(metadata_seen_, true)) source_.fail("__metadata__: appears twice");
    return;
  }
  if (name.empty()) fail_entry("name: is empty; need at least one character");
  if (name.size() > kMaxNameBytes) {
    fail_entry("name: is ", name.size(), " bytes; need at most ", kMaxNameBytes);
  }
  if (has_control_character(name)) fail_entry("name: holds a control character; need none");
}

void SafetensorsSax::metadata_name(const std::string& name) {
  if (header_.metadata.size() == kMaxMetadataEntries) {
    source_.fail("__metadata__: has more than ", kMaxMetadataEntries,
                 " entries; at most as many are read");
  }
  if (header_.metadata.count(name) != 0) {
    source_.fail("__metadata__: ", shown_name(name), ": appears twice");
  }
  metadata_key_ = name;
}

void SafetensorsSax::field_name(const std::string& name) {
  field_ = name == "dtype"          ? kDtype
           : name == "shape"        ? kShapeField
           : name == "data_offsets" ? kOffsetsField
                                    : kNone;
  if (field_ == kNone) {
    fail_entry("field ", shown_name(name), " is unknown; need dtype, shape and data_offsets only");
  }
  if ((fields_seen_ & field_) != 0) fail_entry(name, ": appears twice");
  fields_seen_ |= field_;
}

void SafetensorsSax::finish_entry() {
  constexpr std::pair<Field, const char*> kNeeded[] = {
      {kDtype, "dtype"}, {kShapeField, "shape"}, {kOffsetsField, "data_offsets"}};
  for (const auto& [field, name] : kNeeded) {
    if ((fields_seen_ & field) == 0) fail_entry(name, ": is missing");
  }
  entry_.name = name_;
  header_.entries.push_back(std::move(entry_));
}

}  // namespace polyhead
