#include "io/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include <polyhead/error.h>
#include "base/escape.h"
#include "base/message.h"

namespace polyhead {
namespace {

constexpr size_t kWriteBytes = size_t{1} << 30;  // one write moves at most 2 GiB - 4 KiB on Linux

// Unique among the threads of this process; O_EXCL settles the rest.
std::string temporary_name() {
  static std::atomic<unsigned> counter{0};
  return message(".polyhead-", ::getpid(), "-", counter.fetch_add(1), ".tmp");
}

}  // namespace

AtomicFile::AtomicFile(const std::string& function, const std::string& path, SystemCalls& calls)
    : calls_(calls), where_(message(function, ": ", escaped(path))), target_(path) {
  if (path.empty() || path.find('\0') != std::string::npos) {
    fail("cannot write", path.empty() ? "the path is empty" : "a NUL byte in the path");
  }
  check_target();
  try {
    create_temporary();
  } catch (...) {  // no destructor runs for a constructor that throws
    discard();
    throw;
  }
}

AtomicFile::~AtomicFile() { discard(); }

void AtomicFile::fail(const char* what, const std::string& why) const {
  throw IoError(message(where_, ": ", what, ": ", why));
}

void AtomicFile::check_target() {
  std::error_code ignored;
  if (std::filesystem::is_symlink(target_, ignored)) {
    const auto resolved = std::filesystem::weakly_canonical(target_, ignored);
    if (!resolved.empty()) target_ = resolved.string();
  }
  struct stat found;
  if (::stat(target_.c_str(), &found) != 0) return;  // absent, or creating beside it will say why
  if (!S_ISREG(found.st_mode)) {
    fail("cannot write", "is " + file_type_name(found.st_mode) + "; need a regular file");
  }
  if (::access(target_.c_str(), W_OK) != 0) fail("cannot write", error_text(errno));
  keeps_mode_ = true;
  mode_ = found.st_mode & 07777;
}

void AtomicFile::create_temporary() {
  const size_t slash = target_.rfind('/');
  const std::string folder = slash == std::string::npos ? "" : target_.substr(0, slash + 1);
  if (folder.size() == target_.size()) fail("cannot write", "the path ends in a slash");
  do {
    temporary_ = folder + temporary_name();
    fd_ = calls_.open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  } while (fd_ < 0 && (errno == EEXIST || errno == EINTR));
  if (fd_ < 0) fail("cannot create a file in its folder", error_text(errno));
  if (keeps_mode_ && calls_.fchmod(fd_, mode_) != 0) {
    fail("cannot keep its permissions", error_text(errno));
  }
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t put = calls_.write(fd_, bytes.data(), std::min(bytes.size(), kWriteBytes));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) fail("cannot write", error_text(errno));
    if (put == 0) fail("cannot write", "no progress");
    bytes = bytes.subspan(static_cast<size_t>(put));
  }
}

void AtomicFile::commit() {
  int synced;
  do {
    synced = calls_.fsync(fd_);
  } while (synced != 0 && errno == EINTR);
  if (synced != 0) fail("cannot write to the disk", error_text(errno));
  const int fd = std::exchange(fd_, -1);  // after close() the number is gone, even if it failed
  if (calls_.close(fd) != 0 && errno != EINTR) fail("cannot close", error_text(errno));
  if (calls_.rename(temporary_.c_str(), target_.c_str()) != 0) {
    fail("cannot rename to it", error_text(errno));
  }
  temporary_.clear();
}

void AtomicFile::discard() noexcept {
  if (fd_ >= 0) calls_.close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

}  // namespace polyhead
