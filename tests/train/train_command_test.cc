// The program as a user runs it: exit codes, one line on stderr, Ctrl-C, and what is left on disk.
#include <sys/stat.h>

#include <algorithm>

#include "tests/cli/command_runner.h"

namespace polyhead::cli {
namespace {

constexpr const char* kRun = "run.safetensors";
constexpr const char* kForever = "1000000000";

class TrainCommand : public CommandTest {
 protected:
  // A run of a tiny model that goes on until `steps` are done.
  static std::vector<std::string> until(const std::string& steps,
                                        const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments = {
        "--width", "16", "--heads", "2",   "--length",     "8",  "--vocabulary", "12",
        "--batch", "2",  "--steps", steps, "--checkpoint", kRun, "--page",       "h.html"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  void train(const std::string& steps, const std::vector<std::string>& more = {}) const {
    const Outcome outcome = polyhead(until(steps, more));
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_EQ(outcome.err, "");
  }
  // This code, and one line on stderr that contains `words`.
  void expect_refused(const std::vector<std::string>& arguments, int code, const std::string& words,
                      const RunOptions& options = {}) const {
    const Outcome outcome = polyhead(arguments, options);
    EXPECT_EQ(outcome.code, code) << outcome.err;
    EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << outcome.err;
    EXPECT_TRUE(outcome.err.starts_with("train: ")) << outcome.err;
    EXPECT_NE(outcome.err.find(words), std::string::npos) << outcome.err << "want: " << words;
  }
};

TEST_F(TrainCommand, PrintsLinesIntoAPipeAndWritesThePage) {
  const Outcome outcome = polyhead(until("40"));
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.err, "");
  EXPECT_EQ(outcome.out.find('\r'), std::string::npos);
  EXPECT_EQ(std::ranges::count(outcome.out, '\n'), 1 + 20 + 4) << outcome.out;
  EXPECT_TRUE(outcome.out.starts_with("2 layers of 2 heads learn ")) << outcome.out;
  EXPECT_NE(outcome.out.find("Guessing has loss 2.48."), std::string::npos)
      << outcome.out;  // ln 12
  EXPECT_NE(outcome.out.find("step 40/40  loss "), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("tokens/s  0:00 left\n"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("\n  layer 2   "), std::string::npos) << outcome.out;
  EXPECT_EQ(files(), (std::vector<std::string>{"h.html", kRun}));
  EXPECT_NE(text("h.html").find("</html>"), std::string::npos);
}

TEST_F(TrainCommand, ResumesWithTheSameBytes) {
  train("30");
  const std::string whole = text(kRun), page = text("h.html");
  std::filesystem::remove(path(kRun));
  train("11", {"--threads", "1"});
  EXPECT_NE(text(kRun), whole);
  train("30", {"--resume", "--threads", "2", "--save-every", "4"});
  EXPECT_EQ(text(kRun), whole);
  EXPECT_EQ(text("h.html"), page);
  train("30", {"--resume"});  // nothing left to do
  EXPECT_EQ(text(kRun), whole);
}

TEST_F(TrainCommand, CtrlCSavesAndSaysHowToGoOn) {
  const Outcome outcome = polyhead(until(kForever), {.interrupt_after_ms = 700});
  EXPECT_EQ(outcome.signal, 0);
  EXPECT_EQ(outcome.code, 4);
  EXPECT_TRUE(outcome.err.starts_with("train: interrupted after step ")) << outcome.err;
  EXPECT_NE(outcome.err.find("; --resume goes on from run.safetensors\n"), std::string::npos);
  EXPECT_EQ(files(), std::vector<std::string>{kRun});
  const std::string steps = SafetensorsFile(path(kRun)).metadata().at("step");
  EXPECT_NE(outcome.err.find("after step " + steps + ";"), std::string::npos) << outcome.err;
  const std::string interrupted = text(kRun);
  std::filesystem::remove(path(kRun));
  train(steps);
  EXPECT_EQ(text(kRun), interrupted);
}

TEST_F(TrainCommand, ARunThatIsThereIsNotWrittenOver) {
  train("3");
  const std::string before = text(kRun);
  expect_refused(until("5"), 2, "run.safetensors is there already; --resume goes on from it");
  EXPECT_EQ(text(kRun), before);
}

TEST_F(TrainCommand, CheckpointsThatDoNotFit) {
  expect_refused(until("9", {"--resume"}), 3, "run.safetensors: cannot open");
  train("3");
  const std::string before = text(kRun);
  expect_refused(until("9", {"--resume", "--heads", "4"}), 3, "is a run of vocabulary 12");
  expect_refused(until("9", {"--resume", "--width", "20"}), 3,
                 "width 16, 2 heads, batch 2, learning rate 0.003, seed 1; the flags say "
                 "vocabulary 12, length 8, width 20, 2 heads");
  EXPECT_EQ(text(kRun), before);
  write(kRun, before.substr(0, before.size() / 2));
  expect_refused(until("9", {"--resume"}), 3, kRun);
  MultiheadAttention({.embed_dim = 16, .num_heads = 2, .layout = Layout::kBatchFirst})
      .save(path(kRun));
  expect_refused(until("9", {"--resume"}), 3, "has no polyhead.checkpoint");
}

TEST_F(TrainCommand, WhereNothingCanBeWrittenTheOldCheckpointIsIntact) {
  expect_refused(until("9", {"--checkpoint", "no/such.safetensors"}), 4, "no/such.safetensors");
  expect_refused(until("9", {"--checkpoint", "/proc/run.safetensors"}), 4, "/proc/run.safetensors");
  train("3");
  const std::string before = text(kRun);
  const auto left = files();
  const auto bytes = static_cast<int64_t>(before.size());
  expect_refused(until("9", {"--resume"}), 4, kRun, {.max_file_bytes = bytes / 2});
  EXPECT_EQ(text(kRun), before);
  EXPECT_EQ(files(), left);
}

TEST_F(TrainCommand, FilesThatCannotBeAreRefusedBeforeTheWork) {
  expect_refused(until("9", {"--page", "no/h.html"}), 2, "--page: no/h.html: there is no folder ");
  for (const char* page : {kRun, "./run.safetensors", "no/../run.safetensors"}) {
    expect_refused(until("9", {"--page", page}), 2, "the file of --checkpoint; must be another");
  }
  expect_refused(until("9", {"--page", "."}), 2, "--page: . is a folder; must be a file");
  expect_refused(until("9", {"--checkpoint", "."}), 2, "--checkpoint: . is a folder; must be a");
  expect_refused(until("9", {"--checkpoint", "/dev/null"}), 2, "/dev/null is a device; must be a");
  ASSERT_EQ(::mkfifo(path("fifo").c_str(), 0600), 0);
  for (const char* flag : {"--checkpoint", "--page"}) {
    expect_refused(until("9", {flag, "fifo"}), 2, "fifo is a FIFO; must be a file");
  }
  EXPECT_EQ(files(), std::vector<std::string>{"fifo"});
}

TEST_F(TrainCommand, EnvironmentAndStdout) {
  expect_refused(until("2"), 2, "POLYHEAD_ISA: got \"sse9\"",
                 {.environment = {{"POLYHEAD_ISA", "sse9"}}});
  expect_refused(until("2"), 2, "POLYHEAD_NUM_THREADS: got \"abc\"",
                 {.environment = {{"POLYHEAD_NUM_THREADS", "abc"}}});
  EXPECT_TRUE(files().empty());
  expect_refused(until("2"), 4, "stdout: cannot be written", {.stdout_path = "/dev/full"});
}

TEST_F(TrainCommand, FlagsThatAreWrong) {
  expect_refused({"--bogus"}, 2, "--bogus: no such flag");
  expect_refused({"--steps"}, 2, "--steps: nothing follows it");
  expect_refused({"--steps", "1e3"}, 2, "--steps: got \"1e3\"; must be a number from 0 to");
  expect_refused({"--steps", "-1"}, 2, "--steps: got \"-1\"");
  expect_refused({"--learning-rate", "nan"}, 2, "--learning-rate: got \"nan\"");
  expect_refused({"--checkpoint", ""}, 2, "--checkpoint: got nothing");
  expect_refused({"--heads", "3"}, 2, "--heads: got 3; must divide --width, 128");
  expect_refused({"--vocabulary", "35"}, 2, "--vocabulary: got 35; must be at least");
  EXPECT_TRUE(files().empty());
  const Outcome help = polyhead({"--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_TRUE(help.out.starts_with("usage: train ")) << help.out;
}

TEST_F(TrainCommand, SaysWhereNoHeadIsGoodEnough) {
  expect_refused(until("2", {"--require-induction", "0.9"}), 1, "required are more than 0.9");
}

// The checkpoint with weights so large that the loss is no number.
void make_diverge(const std::string& path) {
  const SafetensorsFile file(path);
  std::vector<Tensor> tensors;
  NamedTensors named;
  for (const SafetensorsEntry& entry : file.entries()) {
    tensors.push_back(file.read(entry.name));
    if (entry.name != "head.weight") continue;
    std::fill_n(tensors.back().data_as<float>(), tensors.back().numel(), 3e38F);
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    named.emplace_back(file.entries()[i].name, std::as_const(tensors[i]).view());
  }
  save_safetensors(path, named, file.metadata());
}

TEST_F(TrainCommand, ATrainingThatDivergesLeavesTheLastCheckpoint) {
  train("2");
  make_diverge(path(kRun));
  const std::string before = text(kRun);
  expect_refused(until("9", {"--resume", "--save-every", "1"}), 1, "gradient of ");
  EXPECT_EQ(text(kRun), before);
}

}  // namespace
}  // namespace polyhead::cli
