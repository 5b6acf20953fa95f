// The system calls of this layer in one place, so that a test can make the n-th one fail, fall
// short or be interrupted.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <cstddef>
#include <string>

namespace polyhead {

// Each as in POSIX: the result, or -1 with errno set.
class SystemCalls {
 public:
  virtual ~SystemCalls() = default;
  virtual int open(const char* path, int flags, mode_t mode);
  virtual int fstat(int fd, struct stat* status);
  virtual ssize_t pread(int fd, void* to, size_t bytes, off_t offset);
  virtual ssize_t write(int fd, const void* from, size_t bytes);
  virtual int fchmod(int fd, mode_t mode);
  virtual int fsync(int fd);
  virtual int close(int fd);
  virtual int rename(const char* from, const char* to);
};

SystemCalls& system_calls();

std::string error_text(int error_number);    // "No such file or directory"
std::string file_type_name(mode_t st_mode);  // "a directory", "a FIFO", ...

}  // namespace polyhead
