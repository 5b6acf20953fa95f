// A regular file, read with pread. Not mapped: a mapped file that shrinks kills the process.
#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "io/byte_source.h"
#include "io/system_calls.h"

namespace polyhead {

class InputFile : public ByteSource {
 public:
  // `function` starts the messages. Refuses whatever is not a regular file, without blocking.
  InputFile(const std::string& function, const std::string& path,
            SystemCalls& calls = system_calls());
  ~InputFile() override;
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  void read(int64_t offset, std::span<std::byte> to) const override;
  void check_unchanged() const override;

 private:
  struct stat status() const;

  SystemCalls& calls_;
  int fd_ = -1;
  struct timespec modified_ = {};
};

}  // namespace polyhead
