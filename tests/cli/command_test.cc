// What each subcommand does when all is well.
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "command_runner.h"

namespace polyhead::cli {
namespace {

const MultiheadAttention& module() {
  static const MultiheadAttention mha(
      {.embed_dim = 16, .num_heads = 4, .layout = Layout::kBatchFirst}, 7);
  return mha;
}

// w: nn.MultiheadAttention, split and full: the two from-scratch layouts; q, k: inputs.
class Command : public CommandTest {
 protected:
  void SetUp() override {
    CommandTest::SetUp();
    module().save(path("w.safetensors"));
    split_.save(path("split.safetensors"));
    full_.save(path("full.safetensors"));
    q_ = save_input("q.npy", {2, 5, 16}, 1);
    k_ = save_input("k.npy", {2, 9, 16}, 2);
  }
  std::vector<std::string> with(std::vector<std::string> start,
                                const std::vector<std::string>& more) const {
    start.insert(start.end(), more.begin(), more.end());
    return start;
  }
  Tensor result(const std::string& name) const { return load_npy(path(name)); }

  const std::vector<std::string> run_ = {"run",   "--weights", "w.safetensors", "--query", "q.npy",
                                         "--key", "k.npy",     "--out",         "o.npy"};
  FromScratchMultiHeadAttention split_{16, 4, HeadWidth::kSplit, 3};
  FromScratchMultiHeadAttention full_{16, 4, HeadWidth::kFull, 4};
  Tensor q_, k_;
};

TEST_F(Command, RunWritesTheBitsOfTheLibrary) {
  const Outcome outcome = polyhead(run_);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "");
  EXPECT_NE(outcome.err.find("batch 2, 5 queries, 9 keys, 4 heads of 4"), std::string::npos)
      << outcome.err;
  EXPECT_TRUE(same_bits(result("o.npy"), module().forward(q_, k_, k_).out));
}

TEST_F(Command, KeyAndValueDefaultToSelfAttention) {
  EXPECT_EQ(
      polyhead({"run", "--weights", "w.safetensors", "--query", "q.npy", "--out", "o.npy"}).code,
      0);
  EXPECT_TRUE(same_bits(result("o.npy"), module().forward(q_, q_, q_).out));
}

TEST_F(Command, WeightsOutAloneMeansAverage) {
  EXPECT_EQ(polyhead(with(run_, {"--weights-out", "a.npy"})).code, 0);
  const ForwardOptions average = {.need_weights = WeightsMode::kAverage};
  EXPECT_TRUE(same_bits(result("a.npy"), module().forward(q_, k_, k_, average).weights));
  EXPECT_EQ(polyhead(with(run_, {"--weights-out", "a.npy", "--need-weights", "per-head"})).code, 0);
  EXPECT_EQ(result("a.npy").shape_string(), "[2, 4, 5, 9]");
}

TEST_F(Command, EveryMaskAndOptionChangesTheAnswer) {
  save_bools("m.npy", {5, 9}, {1, 0, 0, 1});
  save_bools("p.npy", {2, 9}, {0, 1});
  ASSERT_EQ(polyhead(run_).code, 0);
  const Tensor plain = result("o.npy");
  const std::vector<std::vector<std::string>> flags = {
      {"--attn-mask", "m.npy"},
      {"--key-padding-mask", "p.npy"},
      {"--causal"},
      {"--causal", "--causal-align", "bottom-right"},
      {"--add-zero-attn"}};
  for (const auto& flag : flags) {
    ASSERT_EQ(polyhead(with(run_, flag)).code, 0) << flag[0];
    EXPECT_FALSE(same_bits(result("o.npy"), plain)) << flag[0];
  }
}

TEST_F(Command, EmptyRowsAreZeroOrNan) {
  save_bools("m.npy", {5, 9}, std::vector<int>(9, 1));  // query 0 sees nothing
  const auto masked = with(run_, {"--attn-mask", "m.npy"});
  ASSERT_EQ(polyhead(masked).code, 0);
  EXPECT_EQ(
      result("o.npy").data_as<float>()[0],
      module().forward(q_, k_, k_, {.attn_mask = load_npy(path("m.npy"))}).out.data_as<float>()[0]);
  ASSERT_EQ(polyhead(with(masked, {"--empty-rows", "nan"})).code, 0);
  EXPECT_TRUE(std::isnan(result("o.npy").data_as<float>()[0]));
  EXPECT_FALSE(std::isnan(result("o.npy").data_as<float>()[16]));
}

TEST_F(Command, SequenceFirstAndUnbatchedInputs) {
  Tensor turned(q_.view().transposed(0, 1));
  save_npy(path("t.npy"), turned);
  ASSERT_EQ(polyhead({"run", "--weights", "w.safetensors", "--query", "t.npy", "--sequence-first",
                      "--out", "o.npy"})
                .code,
            0);
  const Tensor expected = module().forward(q_, q_, q_).out;
  EXPECT_TRUE(same_bits(result("o.npy"), Tensor(expected.view().transposed(0, 1))));
  save_npy(path("u.npy"), q_.view().select(0, 1));
  const Outcome outcome =
      polyhead({"run", "--weights", "w.safetensors", "--query", "u.npy", "--out", "o.npy"});
  EXPECT_NE(outcome.err.find("unbatched, 5 queries, 5 keys"), std::string::npos) << outcome.err;
  EXPECT_TRUE(same_bits(result("o.npy"), Tensor(expected.view().select(0, 1))));
}

TEST_F(Command, FromScratchModulesOfBothWidths) {
  save_input("m.npy", {5, 9}, 3);
  const Tensor mask = load_npy(path("m.npy"));
  const std::pair<std::string, const FromScratchMultiHeadAttention*> modules[] = {
      {"split.safetensors", &split_}, {"full.safetensors", &full_}};
  for (const auto& [file, scratch] : modules) {
    const Outcome outcome =
        polyhead({"run", "--weights", file, "--query", "q.npy", "--key", "k.npy", "--scratch-mask",
                  "m.npy", "--out", "o.npy", "--weights-out", "a.npy"});
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_TRUE(same_bits(result("o.npy"), scratch->forward(q_, k_, k_, mask)));
    EXPECT_EQ(result("a.npy").shape_string(), "[2, 5, 9]");
  }
}

TEST_F(Command, UnbatchedFromScratchIsOneItemOfTheBatch) {
  save_npy(path("u.npy"), q_.view().select(0, 1));
  ASSERT_EQ(polyhead({"run", "--weights", "split.safetensors", "--query", "u.npy", "--out", "o.npy",
                      "--weights-out", "a.npy", "--need-weights", "per-head"})
                .code,
            0);
  EXPECT_TRUE(same_bits(result("o.npy"), Tensor(split_.forward(q_, q_, q_).view().select(0, 1))));
  EXPECT_EQ(result("a.npy").shape_string(), "[4, 5, 5]");
}

TEST_F(Command, AMapThatTheFileHasNoNamesOfIsNoted) {
  const std::string note = "note: --map bert: none of its names is in w.safetensors";
  EXPECT_EQ(polyhead(run_).err.find("note:"), std::string::npos);
  EXPECT_NE(polyhead(with(run_, {"--map", "bert"})).err.find(note), std::string::npos);
  EXPECT_TRUE(same_bits(result("o.npy"), module().forward(q_, k_, k_).out));
}

TEST_F(Command, OtherNamesByAMapOfTheUser) {
  NamedTensors renamed;
  for (const auto& [name, view] : module().state_dict()) renamed.emplace_back("x." + name, view);
  save_safetensors(path("renamed.safetensors"), renamed);
  write("names.json", R"({"x.in_proj_weight": "in_proj_weight", "x.in_proj_bias": "in_proj_bias",
                          "x.out_proj.weight": "out_proj.weight",
                          "x.out_proj.bias": "out_proj.bias"})");
  const Outcome outcome =
      polyhead({"run", "--weights", "renamed.safetensors", "--map", "names.json", "--num-heads",
                "4", "--query", "q.npy", "--key", "k.npy", "--out", "o.npy"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.err.find("note:"), std::string::npos) << outcome.err;
  EXPECT_TRUE(same_bits(result("o.npy"), module().forward(q_, k_, k_).out));
}

TEST_F(Command, AnyNumberOfThreadsAndAnyFmaIsaGiveTheSameFile) {
  ASSERT_EQ(polyhead(with(run_, {"--threads", "1"})).code, 0);
  const std::string one = text("o.npy");
  ASSERT_EQ(polyhead(with(run_, {"--threads", "3"})).code, 0);
  EXPECT_EQ(text("o.npy"), one);
  for (const std::string& name : available_isas()) {
    ASSERT_EQ(polyhead(run_, {.environment = {{"POLYHEAD_ISA", name}}}).code, 0);
    if (name == "baseline") continue;  // no fused multiply-add
    EXPECT_EQ(text("o.npy"), one) << name;
  }
}

TEST_F(Command, RunWritesTheReport) {
  ASSERT_EQ(polyhead(with(run_, {"--report", "r.html"})).code, 0);
  EXPECT_NE(text("r.html").find("<html"), std::string::npos);
  EXPECT_NE(text("r.html").find("Attention of nn.MultiheadAttention"), std::string::npos);
}

TEST_F(Command, ResultsReplaceAnOlderFileAndKeepItsPermissions) {
  write("o.npy", "old");
  std::filesystem::permissions(
      path("o.npy"), std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  ASSERT_EQ(polyhead(run_).code, 0);
  EXPECT_EQ(result("o.npy").shape_string(), "[2, 5, 16]");
  EXPECT_EQ(std::filesystem::status(path("o.npy")).permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  std::filesystem::create_symlink("o.npy", path("link.npy"));
  ASSERT_EQ(
      polyhead({"run", "--weights", "w.safetensors", "--query", "q.npy", "--out", "link.npy"}).code,
      0);
  EXPECT_TRUE(std::filesystem::is_symlink(path("link.npy")));
  EXPECT_TRUE(same_bits(result("o.npy"), module().forward(q_, q_, q_).out));
}

TEST_F(Command, NanInputsGiveNanRowsAndNoError) {
  q_.data_as<float>()[0] = NAN;
  save_npy(path("q.npy"), q_);
  ASSERT_EQ(polyhead(run_).code, 0);
  EXPECT_TRUE(std::isnan(result("o.npy").data_as<float>()[0]));
  EXPECT_FALSE(std::isnan(result("o.npy").data_as<float>()[16]));
}

TEST_F(Command, NoQueriesAndNoKeys) {
  save_input("none.npy", {2, 0, 16});
  EXPECT_EQ(polyhead({"run", "--weights", "w.safetensors", "--query", "none.npy", "--key", "k.npy",
                      "--out", "o.npy"})
                .code,
            0);
  EXPECT_EQ(result("o.npy").shape_string(), "[2, 0, 16]");
  for (const std::string command : {"verify", "explain"}) {
    EXPECT_EQ(polyhead({command, "--weights", "w.safetensors", "--query", "none.npy"}).code, 0);
    EXPECT_EQ(
        polyhead({command, "--weights", "w.safetensors", "--query", "q.npy", "--key", "none.npy"})
            .code,
        0);
  }
}

TEST_F(Command, AnEmptyBatchHasItsFilesAndItsPage) {
  save_input("none.npy", {0, 5, 16});
  const std::vector<std::string> inputs = {"--weights", "w.safetensors", "--query", "none.npy"};
  for (const std::string command : {"run", "verify", "explain"}) {
    std::vector<std::string> words = with({command}, inputs);
    if (command == "run") words = with(words, {"--out", "o.npy"});
    const Outcome outcome = polyhead(with(words, {"--report", command + ".html"}));
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_NE(text(command + ".html").find("<html"), std::string::npos);
  }
  EXPECT_EQ(result("o.npy").shape_string(), "[0, 5, 16]");
}

TEST_F(Command, VerifyJudgesOutputAndWeights) {
  const Outcome outcome = polyhead(
      {"verify", "--weights", "w.safetensors", "--query", "q.npy", "--key", "k.npy", "--causal"});
  EXPECT_EQ(outcome.code, 0) << outcome.out << outcome.err;
  EXPECT_EQ(outcome.err, "");
  for (const char* words : {"out      ok", "weights  ok", "of the budget", "within the error"}) {
    EXPECT_NE(outcome.out.find(words), std::string::npos) << words << "\n" << outcome.out;
  }
}

TEST_F(Command, VerifyAsJsonForBothLayouts) {
  for (const std::string file : {"w", "split", "full"}) {
    for (const std::string weights : {"none", "average", "per-head"}) {
      const Outcome outcome =
          polyhead({"verify", "--weights", file + ".safetensors", "--query", "q.npy", "--key",
                    "k.npy", "--json", "--need-weights", weights});
      ASSERT_EQ(outcome.code, 0) << outcome.out << outcome.err;
      const auto json = nlohmann::json::parse(outcome.out);
      EXPECT_EQ(json["within_budget"], true);
      EXPECT_EQ(json["out"]["elements"], 2 * 5 * 16);
      EXPECT_LE(json["out"]["share_of_budget"], 1.0);
      EXPECT_GT(json["out"]["budget"], 0.0);
      EXPECT_EQ(json.contains("weights"), weights != "none");
    }
  }
}

TEST_F(Command, ExplainShowsEveryStepInOrder) {
  for (const std::string file : {"w", "split", "full"}) {
    const Outcome outcome = polyhead(
        {"explain", "--weights", file + ".safetensors", "--query", "q.npy", "--key", "k.npy"},
        {.environment = {{"LC_ALL", "C"}, {"COLUMNS", "80"}}});
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_EQ(outcome.err, "");
    size_t at = 0;
    for (const char* step :
         {"1. Project", "2. Split into heads", "3. Scores", "4. Scale", "5. Mask", "6. Softmax",
          "7. Weighted sum", "8. Concatenate", "9. Project the output", "The fast path"}) {
      const size_t next = outcome.out.find(step, at);
      ASSERT_NE(next, std::string::npos) << file << ": " << step << "\n" << outcome.out;
      at = next;
    }
    EXPECT_EQ(outcome.out.find('\033'), std::string::npos) << "colours in a pipe";
    for (const unsigned char c : outcome.out) ASSERT_LT(c, 128) << "LC_ALL=C is ASCII";
    EXPECT_EQ(outcome.out.find("self.fc_out(out)") != std::string::npos, file != "w");
  }
}

TEST_F(Command, ExplainKeepsToTheWidth) {
  save_input("long.npy", {1, 70, 16});
  for (const int width : {80, 120}) {
    const Outcome outcome =
        polyhead({"explain", "--weights", "w.safetensors", "--query", "long.npy", "--causal"},
                 {.environment = {{"LC_ALL", "C"}, {"COLUMNS", std::to_string(width)}}});
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    std::istringstream lines(outcome.out);
    for (std::string line; std::getline(lines, line);) {
      EXPECT_LE(line.size(), static_cast<size_t>(width)) << line;
    }
  }
}

TEST_F(Command, InfoOfTheMachine) {
  const Outcome outcome = polyhead({"info"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_NE(outcome.out.find(isa() + " (in use)"), std::string::npos) << outcome.out;
  for (const auto& plans : {attention_plans(), attention_backward_plans()}) {
    for (const PlanInfo& plan : plans) {
      EXPECT_NE(outcome.out.find(plan.name), std::string::npos) << plan.name;
    }
  }
  EXPECT_NE(polyhead({"info"}, {.environment = {{"POLYHEAD_NUM_THREADS", "3"}}})
                .out.find("threads  3 of"),
            std::string::npos);
}

TEST_F(Command, InfoOfFiles) {
  const Outcome weights = polyhead({"info", "w.safetensors"});
  EXPECT_EQ(weights.code, 0);
  for (const char* words : {"in_proj_weight", "F32", "[48, 16]", "num_heads: 4",
                            "nn.MultiheadAttention, embed_dim 16, 4 heads"}) {
    EXPECT_NE(weights.out.find(words), std::string::npos) << words << "\n" << weights.out;
  }
  EXPECT_NE(polyhead({"info", "full.safetensors"}).out.find("full head width"), std::string::npos);
  const Outcome array = polyhead({"info", "q.npy"});
  EXPECT_NE(array.out.find("npy, float32 [2, 5, 16]"), std::string::npos) << array.out;
}

TEST_F(Command, HelpAndVersionGoToStdout) {
  for (const std::string command : {"run", "verify", "explain", "demo", "info"}) {
    const Outcome outcome = polyhead({command, "--help"});
    EXPECT_EQ(outcome.code, 0);
    EXPECT_EQ(outcome.err, "");
    EXPECT_EQ(outcome.out.rfind("polyhead " + command + ": ", 0), 0u) << outcome.out;
  }
  EXPECT_NE(polyhead({"--help"}).out.find("Exit codes"), std::string::npos);
  EXPECT_EQ(polyhead({"help"}).out, polyhead({"--help"}).out);
  EXPECT_EQ(polyhead({"help", "run"}).out, polyhead({"run", "--help"}).out);
  EXPECT_EQ(polyhead({"--version"}).out, std::string("polyhead ") + version() + "\n");
}

}  // namespace
}  // namespace polyhead::cli
