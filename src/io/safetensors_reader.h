// A safetensors file behind any source of bytes; SafetensorsFile is this over a file.
#pragma once

#include <memory>
#include <string>

#include <polyhead/io.h>
#include "io/byte_source.h"
#include "io/safetensors_header.h"

namespace polyhead {

class SafetensorsReader {
 public:
  SafetensorsReader(std::unique_ptr<ByteSource> source, const std::string& path,
                    const SafetensorsOptions& options);

  const SafetensorsHeader& header() const { return header_; }
  Tensor read(const std::string& name) const;

 private:
  std::unique_ptr<ByteSource> source_;
  SafetensorsHeader header_;
};

}  // namespace polyhead
