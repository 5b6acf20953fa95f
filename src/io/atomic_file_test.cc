#include "io/atomic_file.h"

#include <sys/resource.h>
#include <sys/stat.h>

#include <gtest/gtest.h>

#include <csignal>
#include <string>
#include <thread>
#include <vector>

#include <polyhead/io.h>
#include "io/test_files.h"

namespace polyhead {
namespace {

using std::string_literals::operator""s;

TEST(AtomicFile, AppearsOnlyWhenCommitted) {
  const TestFolder folder;
  const std::string path = folder.write("out", "old");
  {
    AtomicFile file("save", path);
    file.write(std::string_view("new"));
    EXPECT_EQ(file_bytes(path), "old");
  }
  EXPECT_EQ(file_bytes(path), "old");
  EXPECT_EQ(folder.file_count(), 1u);
  AtomicFile file("save", path);
  file.write(std::string_view("new"));
  file.commit();
  EXPECT_EQ(file_bytes(path), "new");
  EXPECT_EQ(folder.file_count(), 1u);
}

TEST(AtomicFile, KeepsPermissionsAndSymlinks) {
  const TestFolder folder;
  const std::string path = folder.write("out", "old");
  ASSERT_EQ(::chmod(path.c_str(), 0600), 0);
  std::filesystem::create_symlink(path, folder.path("link"));
  save_text(folder.path("link"), "new");
  EXPECT_TRUE(std::filesystem::is_symlink(folder.path("link")));
  EXPECT_EQ(file_bytes(path), "new");
  EXPECT_EQ(std::filesystem::status(path).permissions(), std::filesystem::perms(0600));
}

TEST(AtomicFile, SaysWhyItCannotWrite) {
  const TestFolder folder;
  const auto save = [](const std::string& path) { return [path] { save_text(path, "x"); }; };
  std::filesystem::create_directory(folder.path("folder"));
  const std::string plain = folder.write("plain", "kept");
  expect_refused<IoError>(save(folder.path("absent/out")),
                          {"save_text: ", "absent/out", "No such file or directory"});
  expect_refused<IoError>(save(folder.path("folder")), {"folder", "is a directory"});
  expect_refused<IoError>(save(folder.path("folder/")), {"is a directory"});
  expect_refused<IoError>(save(folder.path("new/")), {"ends in a slash"});
  expect_refused<IoError>(save(plain + "/out"), {"plain/out", "Not a directory"});
  expect_refused<IoError>(save("/dev/null"), {"/dev/null", "is a device; need a regular file"});
  expect_refused<IoError>(save("/proc/polyhead"), {"/proc/polyhead", "cannot create a file"});
  expect_refused<IoError>(save(""), {"the path is empty"});
  expect_refused<IoError>(save("a\0b"s), {"NUL byte in the path"});
  EXPECT_EQ(folder.file_count(), 2u);
  EXPECT_EQ(file_bytes(plain), "kept");
}

// A limit on the size of files stands in for a full disk: write() fails half way.
TEST(AtomicFile, LeavesNothingWhenTheDiskIsFull) {
  const TestFolder folder;
  const std::string path = folder.write("out", "old");
  struct rlimit saved;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &saved), 0);
  struct rlimit small = saved;
  small.rlim_cur = 1000;
  std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  expect_refused<IoError>([&] { save_text(path, std::string(5000, 'x')); },
                          {path, "cannot write", "File too large"});
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &saved), 0);
  EXPECT_EQ(file_bytes(path), "old");
  EXPECT_EQ(folder.file_count(), 1u);
}

TEST(AtomicFile, ManyWritersLeaveOneWholeFile) {
  const TestFolder folder;
  const std::string path = folder.path("out");
  std::vector<std::thread> writers;
  for (char c = 'a'; c < 'i'; ++c) {
    writers.emplace_back([&path, c] { save_text(path, std::string(100'000, c)); });
  }
  for (auto& writer : writers) writer.join();
  const std::string bytes = file_bytes(path);
  EXPECT_EQ(bytes, std::string(100'000, bytes.at(0)));
  EXPECT_EQ(folder.file_count(), 1u);
}

}  // namespace
}  // namespace polyhead
