#include "output_files.h"

#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <polyhead/polyhead.h>
#include "errors.h"
#include "interrupt.h"

namespace polyhead::cli {
namespace {

class OutputFiles : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "outputs-XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  OutputFile file(const std::string& name, const std::string& text) const {
    return {"--" + name, (folder_ / name).string(),
            [text](const std::string& path) { save_text(path, text); }};
  }
  std::string text(const std::string& name) const {
    std::ifstream file(folder_ / name);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
  }
  std::ptrdiff_t count() const {
    return std::distance(std::filesystem::directory_iterator(folder_),
                         std::filesystem::directory_iterator());
  }

  std::filesystem::path folder_;
};

TEST_F(OutputFiles, AllAppear) {
  save_text((folder_ / "b").string(), "old");
  write_output_files({file("a", "one"), file("b", "two")});
  EXPECT_EQ(text("a"), "one");
  EXPECT_EQ(text("b"), "two");
  EXPECT_EQ(count(), 2);
}

TEST_F(OutputFiles, AFailureWhileWritingTouchesNothing) {
  save_text((folder_ / "a").string(), "old");
  OutputFile broken = file("b", "");
  broken.write = [](const std::string& path) { throw IoError("save: " + path + ": disk full"); };
  try {
    write_output_files({file("a", "new"), broken});
    FAIL();
  } catch (const ResourceError& error) {
    EXPECT_EQ(error.what(), broken.flag + " " + broken.path + ": disk full");
  }
  EXPECT_EQ(text("a"), "old");
  EXPECT_EQ(count(), 1);
}

TEST_F(OutputFiles, AFailedRenameTakesBackTheFilesBeforeIt) {
  save_text((folder_ / "a").string(), "old");
  OutputFile blocked = file("c", "three");
  // Becomes a folder after all checks: its rename fails, when a and b have already moved.
  blocked.write = [this](const std::string& path) {
    save_text(path, "three");
    std::filesystem::create_directory(folder_ / "c");
  };
  EXPECT_THROW(write_output_files({file("a", "new"), file("b", "two"), blocked}), ResourceError);
  EXPECT_EQ(text("a"), "old");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "b"));
  EXPECT_EQ(count(), 2);  // a, and the folder c
}

TEST_F(OutputFiles, AnInterruptionWhileWritingLeavesNothing) {
  OutputFile slow = file("b", "");
  slow.write = [](const std::string& path) {
    save_text(path, "half");
    std::raise(SIGINT);
  };
  EXPECT_EXIT(
      {
        install_signal_handlers("polyhead run");
        write_output_files({file("a", "one"), slow});
      },
      testing::ExitedWithCode(kNoResource), "polyhead run: interrupted");
  EXPECT_EQ(count(), 0);
}

TEST_F(OutputFiles, PathsAreCheckedBeforehand) {
  const std::string a = (folder_ / "a").string();
  EXPECT_NO_THROW(check_output_paths({file("a", "")}, {(folder_ / "b").string()}));
  EXPECT_THROW(check_output_paths({file("a", ""), file("./a", "")}, {}), UsageError);
  save_text(a, "");
  std::filesystem::create_symlink("a", folder_ / "link");
  EXPECT_THROW(check_output_paths({file("link", "")}, {a}), UsageError);
  EXPECT_THROW(check_output_paths({file("no/such", "")}, {}), ResourceError);
  EXPECT_THROW(check_output_paths({{"--out", folder_.string(), {}}}, {}), ResourceError);
  EXPECT_EQ(count(), 2);
}

}  // namespace
}  // namespace polyhead::cli
