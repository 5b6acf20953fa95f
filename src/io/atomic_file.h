// A file that appears whole or not at all: written under another name in the target's folder, then
// renamed over the target. A process killed meanwhile leaves `.polyhead-*.tmp` there.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "io/system_calls.h"

namespace polyhead {

class AtomicFile {
 public:
  // `function` starts the messages. Throws IoError here as everywhere below; an existing target
  // keeps its permissions, and a symlink its name: what it points to is replaced.
  AtomicFile(const std::string& function, const std::string& path,
             SystemCalls& calls = system_calls());
  ~AtomicFile();  // removes what was written unless commit() succeeded
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  void commit();

 private:
  [[noreturn]] void fail(const char* what, const std::string& why) const;
  void check_target();
  void create_temporary();
  void discard() noexcept;

  SystemCalls& calls_;
  std::string where_, target_, temporary_;
  int fd_ = -1;
  bool keeps_mode_ = false;
  mode_t mode_ = 0666;
};

}  // namespace polyhead
