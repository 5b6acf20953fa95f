// When the machine fails: full disks, no memory, interruption, closed streams. Results appear whole
// or not at all.
#include "command_runner.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define POLYHEAD_UNDER_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define POLYHEAD_UNDER_SANITIZER 1
#endif
#endif

namespace polyhead::cli {
namespace {

class CommandFailures : public CommandTest {
 protected:
  void SetUp() override {
    CommandTest::SetUp();
    MultiheadAttention({.embed_dim = 16, .num_heads = 4, .layout = Layout::kBatchFirst})
        .save(path("w.safetensors"));
    save_input("q.npy", {2, 5, 16});
    write("o.npy", "old result");
    write("a.npy", "old weights");
    before_ = files();
  }
  void expect_untouched() const {
    EXPECT_EQ(files(), before_);
    EXPECT_EQ(text("o.npy"), "old result");
    EXPECT_EQ(text("a.npy"), "old weights");
  }
  std::vector<std::string> run(const std::vector<std::string>& more,
                               const std::string& out = "o.npy") const {
    std::vector<std::string> arguments = {"run",   "--weights", "w.safetensors", "--query", "q.npy",
                                          "--out", out};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }

  std::vector<std::string> before_;
};

TEST_F(CommandFailures, PlacesThatCannotBeWritten) {
  expect_error(run({}, "no/such/o.npy"), 4, "--out no/such/o.npy: cannot write in no/such");
  expect_error(run({}, "."), 4, "--out .: is a folder");
  expect_error(run({}, "/dev/full"), 4, "--out /dev/full: is not a regular file");
  expect_error(run({}, "/proc/o.npy"), 4, "/proc/o.npy");
  expect_error(run({}, std::string(5000, 'x')), 4, "File name too long");
  expect_error(run({"--weights-out", "no/a.npy"}), 4, "--weights-out no/a.npy");
  expect_error(run({"--report", "/"}), 4, "--report /");
  expect_error(run({}, "-"), 2, "--out: got \"-\"; results go to files");
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/full"));
  expect_untouched();
}

TEST_F(CommandFailures, ResultsMustNotMeetEachOtherOrAnInput) {
  expect_error(run({"--weights-out", "./o.npy"}), 2, "--weights-out: is the file of --out");
  expect_error(run({"--report", "o.npy"}), 2, "--report: is the file of --out");
  expect_error(run({}, "q.npy"), 2, "q.npy is also read");
  expect_error(run({}, "./w.safetensors"), 2, "w.safetensors is also read");
  expect_untouched();
}

TEST_F(CommandFailures, ThePageOfTheDemoNeverReplacesItsModel) {
  for (const char* name : {"config.json", "tokenizer.json", "model.safetensors"}) {
    write(name, "part of the model");
    expect_error({"demo", "--model", ".", "--report", path(name)}, 2, "is also read");
    EXPECT_EQ(text(name), "part of the model");
  }
  expect_error({"demo", "--model", ".", "--report", "no/such/page.html"}, 4, "--report no/such");
}

TEST_F(CommandFailures, ABadInputLeavesOldResults) {
  expect_error(run({"--key", "none.npy", "--weights-out", "a.npy"}), 3, "none.npy");
  expect_untouched();
}

TEST_F(CommandFailures, TheLastOfSeveralFilesThatDoesNotFitTakesAllBack) {
  // The output and the weights fit in 8 kB, the page does not.
  expect_error(run({"--weights-out", "a.npy", "--report", "r.html"}), 4,
               "run: --report r.html: ", {.max_file_bytes = 8 << 10});
  expect_untouched();
}

TEST_F(CommandFailures, AFullDisk) {
  save_input("long.npy", {1, 2000, 16});
  before_ = files();
  expect_error({"run", "--weights", "w.safetensors", "--query", "long.npy", "--out", "o.npy"}, 4,
               "run: --out o.npy: ", {.max_file_bytes = 64 << 10});
  expect_untouched();
}

TEST_F(CommandFailures, StdoutThatCannotBeWritten) {
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{"info"},
        {"--help"},
        {"info", "q.npy"},
        {"explain", "--weights", "w.safetensors", "--query", "q.npy"},
        {"verify", "--weights", "w.safetensors", "--query", "q.npy"}}) {
    expect_error(arguments, 4, "stdout: cannot be written", {.stdout_path = "/dev/full"});
    expect_error(arguments, 4, "stdout: cannot be written", {.closed_streams = {1}});
  }
}

TEST_F(CommandFailures, ClosedStreamsDoNotEndUpInResults) {
  ASSERT_EQ(polyhead(run({"--weights-out", "a.npy"}), {.closed_streams = {0, 1, 2}}).code, 0);
  EXPECT_EQ(load_npy(path("o.npy")).shape_string(), "[2, 5, 16]");
  EXPECT_EQ(load_npy(path("a.npy")).shape_string(), "[2, 5, 5]");
  EXPECT_EQ(polyhead(run({"--key", "none.npy"}), {.closed_streams = {2}}).code, 3);
  EXPECT_EQ(polyhead({"info"}, {.closed_streams = {0}}).code, 0);
}

TEST_F(CommandFailures, Memory) {
#ifdef POLYHEAD_UNDER_SANITIZER
  GTEST_SKIP() << "sanitizers need the address space";
#endif
  save_input("long.npy", {1, 9000, 16});
  before_ = files();
  // Weights per head of 9000 x 9000 take 1.3 GB.
  expect_error({"run", "--weights", "w.safetensors", "--query", "long.npy", "--out", "o.npy",
                "--weights-out", "a.npy", "--need-weights", "per-head", "--threads", "1"},
               4, "not enough memory", {.max_memory_bytes = 600 << 20});
  expect_untouched();
}

TEST_F(CommandFailures, AnInterruptionDuringTheComputation) {
  save_input("long.npy", {1, 6000, 16});
  before_ = files();
  // The double reference of 144 million scores takes far longer than the interruption.
  expect_error({"verify", "--weights", "w.safetensors", "--query", "long.npy", "--weights-out",
                "a.npy", "--need-weights", "average"},
               4, "polyhead verify: interrupted", {.interrupt_after_ms = 500});
  expect_untouched();
}

}  // namespace
}  // namespace polyhead::cli
