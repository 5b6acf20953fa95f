// Each mistake: its exit code, one line on stderr that says what to do, and no file touched.
#include <sys/stat.h>

#include <algorithm>
#include <functional>

#include "command_runner.h"

namespace polyhead::cli {
namespace {

class CommandErrors : public CommandTest {
 protected:
  void SetUp() override {
    CommandTest::SetUp();
    const MultiheadAttention mha({.embed_dim = 16, .num_heads = 4, .layout = Layout::kBatchFirst},
                                 7);
    mha.save(path("w.safetensors"));
    NamedTensors bare;  // without num_heads in __metadata__
    for (const auto& [name, view] : mha.state_dict()) bare.emplace_back(name, view);
    save_safetensors(path("bare.safetensors"), bare);
    FromScratchMultiHeadAttention(16, 4).save(path("split.safetensors"));
    save_input("q.npy", {2, 5, 16}, 1);
    save_input("k.npy", {2, 9, 16}, 2);
    before_ = files();
  }
  void TearDown() override {
    EXPECT_EQ(files(), before_) << "a failed command left or took files";
    CommandTest::TearDown();
  }

  // `run` with these flags beside the required ones.
  std::vector<std::string> run(const std::vector<std::string>& more,
                               const std::string& weights = "w.safetensors") const {
    std::vector<std::string> arguments = {"run",   "--weights", weights, "--query",
                                          "q.npy", "--out",     "o.npy"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }
  void save(const std::string& name, const std::function<void()>& body) {
    body();
    before_.push_back(name);
    std::sort(before_.begin(), before_.end());
  }

  std::vector<std::string> before_;
};

TEST_F(CommandErrors, UnknownWordsSuggestTheNearest) {
  expect_error({}, 2, "needs a command");
  expect_error({"rnu"}, 2, "no such command: \"rnu\"; did you mean run?");
  expect_error({"--frobnicate"}, 2, "not expected: \"--frobnicate\"");
  expect_error(run({"--num-head", "4"}), 2, "did you mean --num-heads?");
  expect_error(run({"stray"}), 2, "not expected: \"stray\"");
  expect_error({"info", "q.npy", "k.npy"}, 2, "not expected: \"k.npy\"");
  expect_error({"verify", "--weights", "w.safetensors", "--query", "q.npy", "--out", "o.npy"}, 2,
               "not expected: \"--out\"");
  expect_error({"explain", "--weights", "w.safetensors", "--query", "q.npy", "--json"}, 2,
               "not expected: \"--json\"");
}

TEST_F(CommandErrors, RequiredFlags) {
  expect_error({"run"}, 2, "--weights is required");
  expect_error({"run", "--weights", "w.safetensors"}, 2, "--query is required");
  expect_error({"run", "--weights", "w.safetensors", "--query", "q.npy"}, 2, "--out is required");
  expect_error({"demo"}, 2, "--model is required");
}

TEST_F(CommandErrors, ValuesOfFlags) {
  for (const std::string value : {"0", "-1", "4.5", "4x", "", "99999999999999999999", "0x4"}) {
    expect_error(run({"--num-heads=" + value}), 2, "--num-heads: ");
  }
  expect_error(run({"--num-heads"}), 2, "--num-heads: needs a value");
  expect_error(run({"--threads", "0"}), 2, "need a whole number from 1 to 1024");
  expect_error(run({"--threads", "1025"}), 2, "need a whole number from 1 to 1024");
  expect_error(run({"--out", "p.npy"}), 2, "--out: given more than once");
  expect_error(run({"--key", ""}), 2, "--key: got \"\"; need the name of a file");
  expect_error(run({"--causal=maybe"}), 2, "takes no value");
  expect_error(run({"--layout", "torch"}), 2, "need auto|mha|scratch");
  expect_error(run({"--need-weights", "all"}), 2, "need none|average|per-head");
  expect_error(run({"--empty-rows", "one"}), 2, "need zero|nan");
  expect_error(run({"--causal", "--causal-align", "middle"}), 2, "need top-left|bottom-right");
  expect_error(run({"--map", "gpt"}), 2, "need bert|vit|llama|NAMES.json");
}

TEST_F(CommandErrors, FlagsThatDoNotGoTogether) {
  expect_error(run({"--causal-align", "top-left"}), 2, "--causal-align: needs --causal");
  expect_error(run({"--weights-out", "a.npy", "--need-weights", "none"}), 2,
               "--weights-out: needs --need-weights");
  expect_error(run({"--need-weights", "average"}), 2, "--need-weights: needs --weights-out");
  expect_error(run({"--layout", "mha", "--scratch-mask", "m.npy"}), 2,
               "--scratch-mask: belongs to the from-scratch module; --layout says");
  expect_error(run({"--layout", "scratch", "--attn-mask", "m.npy"}), 2,
               "--attn-mask: belongs to nn.MultiheadAttention; --layout says");
}

TEST_F(CommandErrors, MasksOfTheOtherLayout) {
  expect_error(run({"--scratch-mask", "q.npy"}), 2, "w.safetensors says nn.MultiheadAttention");
  const std::vector<std::vector<std::string>> flags = {{"--attn-mask", "q.npy"},
                                                       {"--key-padding-mask", "q.npy"},
                                                       {"--causal"},
                                                       {"--add-zero-attn"},
                                                       {"--empty-rows", "nan"}};
  for (const auto& flag : flags) {
    expect_error(run(flag, "split.safetensors"), 2,
                 flag[0] + ": belongs to nn.MultiheadAttention; split.safetensors says");
  }
}

TEST_F(CommandErrors, NumberOfHeads) {
  expect_error(run({}, "bare.safetensors"), 2, "--num-heads: not given");
  expect_error(run({"--num-heads", "3"}, "bare.safetensors"), 3,
               "--num-heads: got 3; must be a divisor of embed_dim 16");
  expect_error(run({"--num-heads", "2"}), 3,
               "--num-heads: got 2; must be 4, by the file's __metadata__");
  expect_error(run({"--num-heads", "5", "--layout", "scratch"}, "split.safetensors"), 3,
               "--num-heads: got 5");
}

TEST_F(CommandErrors, NumHeadsInTheMetadataThatIsNone) {
  const MultiheadAttention mha({.embed_dim = 16, .num_heads = 4, .layout = Layout::kBatchFirst});
  NamedTensors tensors;
  for (const auto& [name, view] : mha.state_dict()) tensors.emplace_back(name, view);
  save("bad.st", [] {});
  for (const std::string said : {"0", "-8", "8.0", "eight"}) {
    save_safetensors(path("bad.st"), tensors, {{"num_heads", said}});
    expect_error(run({}, "bad.st"), 3, "__metadata__ has \"" + said + "\"");
    EXPECT_EQ(
        polyhead({"verify", "--weights", "bad.st", "--query", "q.npy", "--num-heads", "4"}).code, 0)
        << said;
    EXPECT_EQ(polyhead({"info", "bad.st"}).out.find("no flags needed"), std::string::npos);
  }
  save_safetensors(path("bad.st"), tensors, {{"num_heads", "5"}});
  const std::string info = polyhead({"info", "bad.st"}).out;
  EXPECT_NE(info.find("would not load: num_heads"), std::string::npos) << info;
  EXPECT_EQ(info.find("no flags needed"), std::string::npos) << info;
  expect_error(run({}, "bad.st"), 3, "got 5; must be a divisor");
}

TEST_F(CommandErrors, FilesThatAreNotThereOrNotFiles) {
  expect_error(run({}, "none.safetensors"), 3, "--weights none.safetensors: cannot open");
  expect_error(run({}, "."), 3, "is a directory");
  expect_error(run({}, "/dev/zero"), 3, "need a regular file");
  expect_error(run({}, "q.npy"), 3, "q.npy: not a safetensors file");
  expect_error(run({"--key", "none.npy"}), 3, "--key none.npy: cannot open");
  expect_error(run({"--key", "w.safetensors"}), 3, "--key w.safetensors: not an npy file");
  expect_error(run({"--map", "none.json"}), 3, "--map none.json: no such file");
  expect_error({"info", "none"}, 3, "none: no such file");
  expect_error({"info", "."}, 3, "not a regular file");
}

TEST_F(CommandErrors, DamagedFiles) {
  save("cut.npy", [&] { write("cut.npy", text("q.npy").substr(0, 200)); });
  save("cut.st", [&] { write("cut.st", text("w.safetensors").substr(0, 100)); });
  save("empty", [&] { write("empty", ""); });
  expect_error(run({"--key", "cut.npy"}), 3, "--key cut.npy: ");
  expect_error(run({}, "cut.st"), 3, "--weights cut.st: ");
  expect_error(run({}, "empty"), 3, "--weights empty: ");
  expect_error({"info", "cut.st"}, 3, "polyhead info: cut.st: ");
  expect_error({"info", "cut.npy"}, 3, "polyhead info: cut.npy: ");
}

TEST_F(CommandErrors, ShapesAndTypesThatDoNotFit) {
  save("wide.npy", [&] { save_input("wide.npy", {2, 5, 24}); });
  save("flat.npy", [&] { save_input("flat.npy", {16}); });
  save("batch.npy", [&] { save_input("batch.npy", {3, 9, 16}); });
  save("double.npy", [&] { save_npy(path("double.npy"), Tensor(DType::kFloat64, {2, 9, 16})); });
  save("mask.npy", [&] { save_bools("mask.npy", {5, 9}, {}); });
  save("int.npy", [&] { save_npy(path("int.npy"), Tensor(DType::kInt32, {5, 5})); });
  expect_error(run({"--key", "wide.npy"}), 3, "--key wide.npy: embed dim is 24");
  expect_error(run({"--key", "batch.npy"}), 3, "--key batch.npy: batch is 3; must be query's 2");
  expect_error(run({"--key", "flat.npy"}), 3, "--key flat.npy: shape is [16]");
  expect_error(run({"--key", "double.npy"}), 3, "--key double.npy: dtype is float64");
  expect_error(run({"--key", "k.npy", "--value", "q.npy"}), 3, "--value q.npy: length is 5");
  expect_error(run({"--attn-mask", "mask.npy"}), 3, "--attn-mask mask.npy: shape is [5, 9]");
  expect_error(run({"--attn-mask", "int.npy"}), 3, "--attn-mask int.npy: dtype is int32");
  expect_error(run({"--key-padding-mask", "mask.npy"}), 3, "--key-padding-mask mask.npy: shape");
  expect_error(run({"--scratch-mask", "mask.npy"}, "split.safetensors"), 3,
               "--scratch-mask mask.npy: shape is");
}

TEST_F(CommandErrors, AReportTooLargeIsRefusedBeforeTheComputation) {
  save("long.npy", [&] { save_input("long.npy", {1, 40'000, 16}); });
  expect_error(
      {"verify", "--weights", "w.safetensors", "--query", "long.npy", "--report", "r.html"}, 3,
      "--report: the weights are [1, 4, 40000, 40000]; a page holds at most");
}

TEST_F(CommandErrors, ModulesThatAreNotThere) {
  save("two.safetensors", [&] {
    const MultiheadAttention mha({.embed_dim = 8, .num_heads = 2, .layout = Layout::kBatchFirst});
    NamedTensors both;
    for (const std::string prefix : {"a.", "b."}) {
      for (const auto& [name, view] : mha.state_dict()) both.emplace_back(prefix + name, view);
    }
    save_safetensors(path("two.safetensors"), both, {{"num_heads", "2"}});
  });
  save("other.safetensors",
       [&] { save_safetensors(path("other.safetensors"), {}, {{"num_heads", "2"}}); });
  expect_error(
      run({}, "two.safetensors"), 3,
      "--weights two.safetensors: holds 2 modules; name one with --prefix: \"a.\", \"b.\"");
  expect_error(run({"--prefix", "c.", "--layout", "mha"}, "two.safetensors"), 3,
               "--prefix: got \"c.\"; recognised in it: ");
  expect_error(run({"--prefix", "c."}, "two.safetensors"), 3,
               "run: --prefix: got \"c.\"; recognised in it: \"a.\" (nn.MultiheadAttention), ");
  expect_error(run({"--prefix", "b"}, "two.safetensors"), 3,
               "run: --prefix: got \"b\"; did you mean \"b.\" (nn.MultiheadAttention)?");
  expect_error(run({}, "other.safetensors"), 3, "no attention module is recognised");
  expect_error(run({"--layout", "scratch", "--num-heads", "4"}), 3, "w.safetensors");
  expect_error(run({"--layout", "mha", "--num-heads", "4"}, "split.safetensors"), 3,
               "split.safetensors");
}

TEST_F(CommandErrors, ModelsOfTheDemoThatAreBad) {
  save("config.json", [] {});
  const std::pair<std::string, std::string> configs[] = {
      {"{", "config.json: not JSON at byte 2"},
      {"[]", "config.json: model_type is missing"},
      {R"({"model_type": 3})", "model_type is 3; must be a text"},
      {R"({"model_type": "bert", "hidden_act": "gelu", "_name_or_path": 1})",
       "_name_or_path is 1; must be a text"},
      {R"({"model_type": "bert", "hidden_act": "gelu", "num_hidden_layers": "six"})",
       "num_hidden_layers is \"six\"; must be a whole number"}};
  for (const auto& [json, words] : configs) {
    write("config.json", json);
    expect_error({"demo", "--model", "."}, 3, words);
    EXPECT_EQ(polyhead({"demo", "--model", "."}).err.find("json.exception"), std::string::npos);
  }
  std::filesystem::remove(path("config.json"));
  ASSERT_EQ(mkfifo(path("config.json").c_str(), 0600), 0);
  expect_error({"demo", "--model", "."}, 3, "config.json: is not a regular file");
  expect_error({"demo", "--model", "none"}, 3, "none/config.json: no such file");
}

TEST_F(CommandErrors, MapsOfTheUser) {
  const std::pair<std::string, std::string> maps[] = {
      {"", "not JSON"},
      {R"({"a": "b")", "not JSON at byte"},
      {R"(["a"])", "need an object of strings"},
      {R"({"a": 1})", "need an object of strings"},
      {R"({"a": {"b": "c"}})", "need an object of strings"},
      {R"({"a": "bias_k", "a": "bias_v"})", "\"a\" comes twice"},
      {R"({"a": "no_such_name"})", "no_such_name"}};
  save("map.json", [] {});
  for (const auto& [json, words] : maps) {
    write("map.json", json);
    expect_error(run({"--map", "map.json", "--num-heads", "4"}), 3, "run: --map map.json: ");
    expect_error(run({"--map", "map.json", "--num-heads", "4"}), 3, words);
  }
}

TEST_F(CommandErrors, Environment) {
  for (const std::string value : {"sse2", " avx2", "AVX2"}) {
    expect_error({"info"}, 2, "POLYHEAD_ISA: got \"" + value + "\"",
                 {.environment = {{"POLYHEAD_ISA", value}}});
  }
  for (const std::string value : {"0", "-1", "+2", " 2", "2 ", "two", "99999999999999999999"}) {
    expect_error(run({}), 2, "POLYHEAD_NUM_THREADS: got \"" + value + "\"",
                 {.environment = {{"POLYHEAD_NUM_THREADS", value}}});
  }
  for (const char* name : {"POLYHEAD_ISA", "POLYHEAD_NUM_THREADS"}) {
    expect_error({"info"}, 2, std::string(name) + ": got \"a\\x1b[2J\"",
                 {.environment = {{name, "a\x1b[2J"}}});
    EXPECT_EQ(polyhead({"info"}, {.environment = {{name, ""}}}).code, 0);  // as if unset
  }
  EXPECT_EQ(polyhead({"--version"}, {.environment = {{"POLYHEAD_ISA", "sse2"}}}).code, 0);
}

TEST_F(CommandErrors, NamesOfUsersCannotMoveTheCursor) {
  const Outcome outcome = polyhead(run({"--key", "a\n\033[31m.npy"}));
  EXPECT_EQ(outcome.code, 3);
  EXPECT_NE(outcome.err.find("a\\n\\x1b[31m.npy"), std::string::npos) << outcome.err;
  expect_error(run({"--x\n\033[2J"}), 2, "\\x1b[2J");
  for (const std::string flag : {"--layout=", "--num-heads=", "--map=", "--causal=", "--query="}) {
    const Outcome other = polyhead(run({flag + "\u202e\033[2J"}));
    EXPECT_EQ(other.code, 2) << other.err;
    EXPECT_EQ(other.err.find('\033'), std::string::npos) << flag;
    EXPECT_EQ(other.err.find("\u202e"), std::string::npos) << flag;
  }
  expect_error(run({std::string(100'000, 'x')}), 2, "xxx...");
}

TEST_F(CommandErrors, HostileTensorNamesAreEscaped) {
  const Tensor one(DType::kFloat32, {1});
  const std::string name = "</script>\u202e../x";
  save("names.st", [&] { save_safetensors(path("names.st"), {{name, one}}); });
  const Outcome outcome = polyhead({"info", "names.st"});
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_EQ(outcome.out.find("\u202e"), std::string::npos);
  EXPECT_NE(outcome.out.find("No attention module"), std::string::npos);
}

}  // namespace
}  // namespace polyhead::cli
