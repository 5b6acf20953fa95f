#include "io/input_file.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>

#include "base/escape.h"

namespace polyhead {
namespace {

constexpr size_t kReadBytes = size_t{1} << 30;  // one pread moves at most 2 GiB - 4 KiB on Linux

}  // namespace

InputFile::InputFile(const std::string& function, const std::string& path, SystemCalls& calls)
    : ByteSource(message(function, ": ", escaped(path))), calls_(calls) {
  if (path.find('\0') != std::string::npos) fail("cannot open: a NUL byte in the path");
  // O_NONBLOCK: opening a FIFO that nobody writes to would wait for ever.
  do {
    fd_ = calls_.open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
  } while (fd_ < 0 && errno == EINTR);
  if (fd_ < 0) fail("cannot open: ", error_text(errno));
  try {
    const struct stat found = status();
    if (!S_ISREG(found.st_mode)) {
      fail("is ", file_type_name(found.st_mode), "; need a regular file");
    }
    size_ = found.st_size;
    modified_ = found.st_mtim;
  } catch (...) {  // no destructor runs for a constructor that throws
    calls_.close(fd_);
    throw;
  }
}

InputFile::~InputFile() { calls_.close(fd_); }

struct stat InputFile::status() const {
  struct stat found = {};
  if (calls_.fstat(fd_, &found) != 0) fail("cannot read its size: ", error_text(errno));
  return found;
}

void InputFile::read(int64_t offset, std::span<std::byte> to) const {
  while (!to.empty()) {
    const ssize_t got = calls_.pread(fd_, to.data(), std::min(to.size(), kReadBytes), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("cannot read at byte ", offset, ": ", error_text(errno));
    if (got == 0) {
      fail("ends at byte ", offset, " but was ", size_, " bytes when opened; it was truncated ",
           "while being read");
    }
    to = to.subspan(static_cast<size_t>(got));
    offset += got;
  }
}

void InputFile::check_unchanged() const {
  const struct stat found = status();
  if (found.st_size != size_) {
    fail("has ", found.st_size, " bytes but had ", size_, " when opened; it must not change ",
         "while being read");
  }
  if (found.st_mtim.tv_sec != modified_.tv_sec || found.st_mtim.tv_nsec != modified_.tv_nsec) {
    fail("was modified after it was opened; it must not change while being read");
  }
}

}  // namespace polyhead
