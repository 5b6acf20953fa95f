#include "io/system_calls.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <system_error>

namespace polyhead {

int SystemCalls::open(const char* path, int flags, mode_t mode) {
  return ::open(path, flags, mode);
}
int SystemCalls::fstat(int fd, struct stat* status) { return ::fstat(fd, status); }
ssize_t SystemCalls::pread(int fd, void* to, size_t bytes, off_t offset) {
  return ::pread(fd, to, bytes, offset);
}
ssize_t SystemCalls::write(int fd, const void* from, size_t bytes) {
  return ::write(fd, from, bytes);
}
int SystemCalls::fchmod(int fd, mode_t mode) { return ::fchmod(fd, mode); }
int SystemCalls::fsync(int fd) { return ::fsync(fd); }
int SystemCalls::close(int fd) { return ::close(fd); }
int SystemCalls::rename(const char* from, const char* to) { return std::rename(from, to); }

SystemCalls& system_calls() {
  static SystemCalls calls;
  return calls;
}

std::string error_text(int error_number) { return std::generic_category().message(error_number); }

std::string file_type_name(mode_t st_mode) {
  if (S_ISREG(st_mode)) return "a regular file";
  if (S_ISDIR(st_mode)) return "a directory";
  if (S_ISFIFO(st_mode)) return "a FIFO";
  if (S_ISSOCK(st_mode)) return "a socket";
  return "a device";
}

}  // namespace polyhead
