// Where the parsers read from: a file, or memory (fuzzing, tests).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include <polyhead/error.h>
#include "base/message.h"

namespace polyhead {

class ByteSource {
 public:
  virtual ~ByteSource() = default;

  const std::string& where() const { return where_; }  // starts messages: "load_npy: x.npy"
  int64_t size() const { return size_; }

  // Fills all of `to` from `offset`, or throws IoError.
  virtual void read(int64_t offset, std::span<std::byte> to) const = 0;
  // Throws IoError if the bytes may have changed since the source was opened.
  virtual void check_unchanged() const {}

  template <class... Parts>
  [[noreturn]] void fail(const Parts&... parts) const {
    throw IoError(message(where_, ": ", parts...));
  }
  template <class... Parts>
  [[noreturn]] void unsupported(const Parts&... parts) const {
    throw Unsupported(message(where_, ": ", parts...));
  }

 protected:
  explicit ByteSource(std::string where, int64_t size = 0)
      : where_(std::move(where)), size_(size) {}

  std::string where_;
  int64_t size_;
};

class MemorySource : public ByteSource {
 public:
  // Refers to `bytes`; does not copy them.
  MemorySource(std::string where, std::span<const std::byte> bytes)
      : ByteSource(std::move(where), static_cast<int64_t>(bytes.size())), bytes_(bytes) {}

  void read(int64_t offset, std::span<std::byte> to) const override {
    if (offset < 0 || offset > size_ || static_cast<int64_t>(to.size()) > size_ - offset) {
      fail("read of ", to.size(), " bytes at ", offset, "; only ", size_, " are there");
    }
    std::copy_n(bytes_.begin() + offset, to.size(), to.begin());
  }

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace polyhead
