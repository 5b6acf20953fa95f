// The header of a safetensors file: 8 bytes of length N (little endian), then N bytes of JSON.
//   {"__metadata__": {"format": "pt"}, "weight": {"dtype": "F32", "shape": [4, 8],
//    "data_offsets": [0, 128]}}
// Stricter than the reference: nothing is skipped, and every size is checked before it is used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <polyhead/io.h>
#include "io/byte_source.h"

namespace polyhead {

// Above these a header is refused.
inline constexpr size_t kMaxFileRank = 64;
inline constexpr size_t kMaxNameBytes = 4096;
inline constexpr size_t kMaxMetadataEntries = 65'536;  // real files hold a handful

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  // in the header's order
  std::vector<size_t> by_name;            // indices into entries, sorted by name
  std::map<std::string, std::string> metadata;
  int64_t data_start = 0;  // bytes from the start of the file

  const SafetensorsEntry* find(std::string_view name) const;
};

// Throws IoError. Streams: the header's text is never in memory as a whole.
// `path` is only for the advice about files of other kinds.
SafetensorsHeader parse_safetensors_header(const ByteSource& source, const std::string& path,
                                           const SafetensorsOptions& options);

// ` tensor "a.b"`, fit for a message.
std::string shown_tensor(std::string_view name);

}  // namespace polyhead
