#include "io/safetensors_writer.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>

#include <polyhead/error.h>
#include "base/checked_math.h"
#include "base/escape.h"
#include "base/message.h"
#include "io/atomic_file.h"
#include "io/elements.h"
#include "io/safetensors_dtype.h"
#include "io/safetensors_header.h"

namespace polyhead {
namespace {

size_t element_bytes(const NamedTensors& tensors, size_t i) {
  return dtype_bytes(tensors[i].second.dtype());
}

void check_tensors(const std::string& where, const NamedTensors& tensors) {
  std::set<std::string_view> names;
  for (const auto& named : tensors) {
    const std::string& name = named.first;
    const auto refuse = [&](const char* why) {
      throw InvalidArgument(message(where, ": ", shown_tensor(name), ": ", why));
    };
    if (name.empty() || name == "__metadata__") refuse("name: need one that is not reserved");
    if (name.size() > kMaxNameBytes) refuse("name: is too long; need at most 4096 bytes");
    if (!is_valid_utf8(name)) refuse("name: is not UTF-8");
    if (has_control_character(name)) refuse("name: holds a control character; need none");
    if (!names.insert(name).second) refuse("name: is given twice; names must differ");
    if (!named.second.defined()) refuse("is not defined; need a tensor");
  }
}

void check_metadata(const std::string& where, const std::map<std::string, std::string>& metadata) {
  if (metadata.size() > kMaxMetadataEntries) {
    throw InvalidArgument(message(where, ": metadata: has ", metadata.size(),
                                  " entries; need at most ", kMaxMetadataEntries));
  }
  for (const auto& [key, value] : metadata) {
    if (!is_valid_utf8(key) || !is_valid_utf8(value)) {
      throw InvalidArgument(message(where, ": metadata: ", in_quotes(key, 200), ": is not UTF-8"));
    }
  }
}

// Widest elements first: each tensor then starts on a multiple of its element's size, without which
// torch cannot read it.
std::vector<size_t> order_by_width(const NamedTensors& tensors) {
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const size_t width_a = element_bytes(tensors, a), width_b = element_bytes(tensors, b);
    return width_a != width_b ? width_a > width_b : a < b;
  });
  return order;
}

struct Range {
  int64_t begin, end;  // bytes within the data
};

std::vector<Range> place(const std::string& where, const NamedTensors& tensors,
                         const std::vector<size_t>& order) {
  std::vector<Range> ranges(tensors.size());
  int64_t end = 0;
  for (size_t i : order) {
    const auto bytes = static_cast<int64_t>(element_bytes(tensors, i)) * tensors[i].second.numel();
    const int64_t begin = end;
    if (!checked_add(begin, bytes, &end)) {
      throw InvalidArgument(message(where, ": the tensors take more than 2^63 bytes"));
    }
    ranges[i] = {begin, end};
  }
  return ranges;
}

std::string json_string(std::string_view text) { return nlohmann::json(text).dump(); }

// {"key":"value","key":"value"}. Objects are put together here: the JSON library's own take memory
// in their destructors, where a failure ends the process.
std::string json_metadata(const std::map<std::string, std::string>& metadata) {
  std::string text = "{";
  for (const auto& [key, value] : metadata) {
    if (text.size() > 1) text += ',';
    text += json_string(key);
    text += ':';
    text += json_string(value);
  }
  text += '}';
  return text;
}

std::string json_numbers(std::span<const int64_t> numbers) {
  std::string text = "[";
  for (int64_t number : numbers) {
    if (text.size() > 1) text += ',';
    text += std::to_string(number);
  }
  text += ']';
  return text;
}

// "name":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}
std::string json_entry(const std::string& name, const ConstTensorView& tensor, Range range) {
  const int64_t offsets[] = {range.begin, range.end};
  std::string text = json_string(name);
  text += ":{\"dtype\":" + json_string(safetensors_name(tensor.dtype()));
  text += ",\"shape\":" + json_numbers(tensor.shape());
  text += ",\"data_offsets\":" + json_numbers(offsets);
  text += '}';
  return text;
}

std::string length_field(size_t length) {
  std::string bytes;
  for (int shift = 0; shift < 64; shift += 8) bytes += static_cast<char>(length >> shift & 0xff);
  return bytes;
}

}  // namespace

SafetensorsLayout plan_safetensors(const std::string& where, const NamedTensors& tensors,
                                   const std::map<std::string, std::string>& metadata) {
  check_tensors(where, tensors);
  check_metadata(where, metadata);
  const std::vector<size_t> order = order_by_width(tensors);
  const std::vector<Range> ranges = place(where, tensors, order);
  std::string text = "{";
  if (!metadata.empty()) text += "\"__metadata__\":" + json_metadata(metadata);
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (text.size() > 1) text += ',';
    text += json_entry(tensors[i].first, tensors[i].second, ranges[i]);
  }
  text += '}';
  text.resize(round_up(text.size(), 8), ' ');
  if (text.size() > static_cast<size_t>(SafetensorsOptions().max_header_bytes)) {
    throw InvalidArgument(message(where, ": the header takes ", text.size(),
                                  " bytes; the format allows ",
                                  SafetensorsOptions().max_header_bytes));
  }
  return {length_field(text.size()) + text, order};
}

void save_safetensors(const std::string& path, const NamedTensors& tensors,
                      const std::map<std::string, std::string>& metadata) {
  const std::string where = message("save_safetensors: ", escaped(path));
  const SafetensorsLayout layout = plan_safetensors(where, tensors, metadata);
  AtomicFile file("save_safetensors", path);
  file.write(layout.header);
  for (size_t i : layout.data_order) write_row_major(file, tensors[i].second);
  file.commit();
}

}  // namespace polyhead
