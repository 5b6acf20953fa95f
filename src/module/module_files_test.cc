// Modules to files and back; other people's names, layouts and dtypes; and what is wrong with
// files.
#include <unistd.h>

#include <array>
#include <ctime>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <polyhead/error.h>
#include <polyhead/io.h>
#include <polyhead/multihead_attention.h>
#include "base/message.h"
#include "module/module_test_tools.h"
#include "module/recognise.h"
#include "testing/compare.h"

namespace polyhead {
namespace {

using oracle::expect_same_bits;
using oracle::random_tensor;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kTorchFile = POLYHEAD_TEST_DATA "/module_fixtures.safetensors";

class ModuleFiles : public ::testing::Test {
 protected:
  ModuleFiles()
      : folder_(std::filesystem::temp_directory_path() / message("polyhead_module_", ::getpid())) {
    std::filesystem::create_directories(folder_);
  }
  ~ModuleFiles() override { std::filesystem::remove_all(folder_); }

  std::string path() const { return (folder_ / "module.safetensors").string(); }

  // The file's tensors, to be changed before it is written.
  struct Named {
    std::string name;
    Tensor tensor;
  };
  std::vector<Named> tensors_;

  void add(const std::string& name, std::initializer_list<int64_t> shape,
           DType dtype = DType::kFloat32) {
    if (dtype == DType::kFloat32 || dtype == DType::kFloat64) {
      tensors_.push_back({name, random_tensor(dtype, shape, 40 + tensors_.size())});
    } else {
      tensors_.push_back({name, Tensor(dtype, shape)});
    }
  }
  void add_torch(const std::string& prefix = "") {
    add(prefix + "in_proj_weight", {24, 8});
    add(prefix + "in_proj_bias", {24});
    add(prefix + "out_proj.weight", {8, 8});
    add(prefix + "out_proj.bias", {8});
  }
  void add_separate(const std::string& stem, const std::string& out, bool bias = true) {
    for (const char* part : {"query", "key", "value"}) {
      add(stem + part + ".weight", {8, 8});
      if (bias) add(stem + part + ".bias", {8});
    }
    add(out + ".weight", {8, 8});
    if (bias) add(out + ".bias", {8});
  }
  void remove(const std::string& name) {
    std::erase_if(tensors_, [&](const Named& named) { return named.name == name; });
  }
  const Tensor& tensor(const std::string& name) const {
    for (const Named& named : tensors_) {
      if (named.name == name) return named.tensor;
    }
    throw InvalidArgument(name);
  }
  void write(const std::map<std::string, std::string>& metadata = {{"num_heads", "2"}}) const {
    NamedTensors named;
    for (const Named& each : tensors_) named.emplace_back(each.name, each.tensor.view());
    save_safetensors(path(), named, metadata);
  }

  MultiheadAttention load(LoadOptions options = {}) const {
    options.layout = Layout::kBatchFirst;
    return MultiheadAttention::load(path(), options);
  }
  // What loading says is wrong.
  std::string error(LoadOptions options = {}) const {
    write();
    return message_of([&] { load(options); });
  }
  static std::string message_of(const std::function<void()>& body) {
    try {
      body();
    } catch (const InvalidArgument& error) {
      return error.what();
    }
    return "nothing thrown";
  }

 private:
  std::filesystem::path folder_;
};

ConstTensorView find(const MultiheadAttention& module, const std::string& name) {
  for (const auto& [known, view] : module.state_dict()) {
    if (known == name) return view;
  }
  return {};
}

template <class Module>
void expect_same_state(const Module& a, const Module& b) {
  const auto left = a.state_dict(), right = b.state_dict();
  ASSERT_EQ(left.size(), right.size());
  for (size_t i = 0; i < left.size(); ++i) {
    EXPECT_EQ(left[i].first, right[i].first);
    expect_same_bits(left[i].second, right[i].second, left[i].first);
  }
}

TEST_F(ModuleFiles, RoundTrips) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat64}) {
    for (int n = 0; n < 16; ++n) {
      const MultiheadAttention saved = oracle::random_mha({.embed_dim = 12,
                                                           .num_heads = 3,
                                                           .layout = Layout::kSequenceFirst,
                                                           .bias = (n & 1) != 0,
                                                           .add_bias_kv = (n & 2) != 0,
                                                           .kdim = (n & 4) != 0 ? 5 : 0,
                                                           .vdim = (n & 8) != 0 ? 7 : 0,
                                                           .dtype = dtype});
      saved.save(path(), "layers.0.self_attn.");
      const MultiheadAttention loaded =
          MultiheadAttention::load(path(), {.layout = Layout::kSequenceFirst});
      expect_same_state(saved, loaded);
      EXPECT_EQ(loaded.config().num_heads, 3);
      EXPECT_EQ(loaded.config().dtype, dtype);
      EXPECT_EQ(loaded.config().layout, Layout::kSequenceFirst);
    }
  }
}

TEST_F(ModuleFiles, SavesTorchsNamesShapesAndOrder) {
  oracle::random_mha({.embed_dim = 12,
                      .num_heads = 3,
                      .layout = Layout::kBatchFirst,
                      .add_bias_kv = true,
                      .kdim = 5})
      .save(path(), "a.");
  std::vector<std::string> found;
  const SafetensorsFile file(path());
  for (const SafetensorsEntry& entry : file.entries()) {
    std::string text = entry.name;
    for (int64_t size : entry.shape) text += message(" ", size);
    found.push_back(text);
  }
  EXPECT_THAT(found,
              ElementsAre("a.q_proj_weight 12 12", "a.k_proj_weight 12 5", "a.v_proj_weight 12 12",
                          "a.in_proj_bias 36", "a.bias_k 1 1 12", "a.bias_v 1 1 12",
                          "a.out_proj.weight 12 12", "a.out_proj.bias 12"));
  EXPECT_EQ(file.metadata().at("num_heads"), "3");
}

// What no tensor tells, and what may then be asked for.
TEST_F(ModuleFiles, SavesHowTheModuleIsCalled) {
  using Config = MultiheadAttention::Config;
  for (const Config& config :
       {Config{.embed_dim = 6, .num_heads = 3, .layout = Layout::kBatchFirst},
        Config{.embed_dim = 6,
               .num_heads = 3,
               .layout = Layout::kSequenceFirst,
               .add_zero_attn = true,
               .dropout = 0.1}}) {
    oracle::random_mha(config).save(path());
    const MultiheadAttention loaded = MultiheadAttention::load(path());
    EXPECT_EQ(loaded.config().layout, config.layout);
    EXPECT_EQ(loaded.config().add_zero_attn, config.add_zero_attn);
    EXPECT_EQ(loaded.config().dropout, config.dropout);
    const Config changed =
        MultiheadAttention::load(path(), {.layout = Layout::kBatchFirst, .dropout = 0.5}).config();
    EXPECT_EQ(changed.layout, Layout::kBatchFirst);
    EXPECT_EQ(changed.dropout, 0.5);
    EXPECT_EQ(changed.add_zero_attn, config.add_zero_attn);
    const bool other = !config.add_zero_attn;
    EXPECT_EQ(MultiheadAttention::load(path(), {.add_zero_attn = other}).config().add_zero_attn,
              other);
  }
}

TEST_F(ModuleFiles, TheLayoutMustBeSaid) {
  add_torch("");
  write();  // as a file of torch's, or an older one of ours
  EXPECT_THAT(message_of([&] { MultiheadAttention::load(path()); }),
              HasSubstr("layout: not said; must be Layout::kBatchFirst or"));
  EXPECT_FALSE(load().config().add_zero_attn);
  EXPECT_EQ(load().config().dropout, 0);
  EXPECT_TRUE(load({.add_zero_attn = true}).config().add_zero_attn);
}

TEST_F(ModuleFiles, StatementsThatCannotBe) {
  add_torch("");
  for (const auto& [key, text, need] : {std::array{"batch_first", "True", "one of false, true"},
                                        std::array{"add_zero_attn", "", "one of false, true"},
                                        std::array{"dropout", "0.1 ", "a number"}}) {
    std::map<std::string, std::string> metadata = {{"num_heads", "2"}, {"batch_first", "true"}};
    metadata[key] = text;
    write(metadata);
    EXPECT_THAT(message_of([&] { MultiheadAttention::load(path()); }),
                HasSubstr(message(key, ": __metadata__ has \"", text, "\"; must be ", need)));
  }
  write({{"num_heads", "2"}, {"batch_first", "true"}, {"dropout", "nan"}});
  EXPECT_THAT(message_of([&] { MultiheadAttention::load(path()); }), HasSubstr("dropout: got nan"));
}

TEST_F(ModuleFiles, FromScratchRoundTrips) {
  for (const HeadWidth width : {HeadWidth::kSplit, HeadWidth::kFull}) {
    const FromScratchMultiHeadAttention saved(6, 3, width, 5, DType::kFloat64);
    saved.save(path(), "attention.");
    const FromScratchMultiHeadAttention loaded = FromScratchMultiHeadAttention::load(path());
    expect_same_state(saved, loaded);
    EXPECT_EQ(loaded.head_width(), width);
    EXPECT_EQ(loaded.num_heads(), 3);
    EXPECT_EQ(loaded.embed_size(), 6);
  }
}

TEST_F(ModuleFiles, FromScratchHeadsMustFit) {
  FromScratchMultiHeadAttention(6, 3, HeadWidth::kFull).save(path());
  EXPECT_THAT(message_of([&] { FromScratchMultiHeadAttention::load(path(), {.num_heads = 2}); }),
              HasSubstr("num_heads: got 2; must be 3, by the shape of q_linear.weight"));
  FromScratchMultiHeadAttention(6, 3).save(path());
  EXPECT_THAT(
      message_of([&] { FromScratchMultiHeadAttention::load(path(), {.add_zero_attn = true}); }),
      HasSubstr("add_zero_attn or dropout is set"));
  EXPECT_THAT(message_of([&] { FromScratchMultiHeadAttention::load(path(), {.num_heads = 2}); }),
              HasSubstr("num_heads: got 2; must be 3, by the file's __metadata__"));
  const Tensor weight(DType::kFloat32, {6, 6}), bias(DType::kFloat32, {6});
  NamedTensors bare;  // without num_heads in __metadata__
  for (const std::string part : {"q_linear", "k_linear", "v_linear", "fc_out"}) {
    bare.emplace_back(part + ".weight", weight);
    bare.emplace_back(part + ".bias", bias);
  }
  save_safetensors(path(), bare);
  EXPECT_THAT(message_of([&] { FromScratchMultiHeadAttention::load(path(), {.num_heads = 4}); }),
              HasSubstr("Embedding size needs to be divisible by num_heads"));
}

// A file that torch wrote, with dozens of modules in it.
TEST_F(ModuleFiles, ReadsTorchsFile) {
  const LoadOptions options{
      .num_heads = 4, .layout = Layout::kBatchFirst, .prefix = "kdim_vdim/param/"};
  const MultiheadAttention module = MultiheadAttention::load(kTorchFile, options);
  const SafetensorsFile file(kTorchFile);
  for (const auto& [name, view] : module.state_dict()) {
    expect_same_bits(view, file.read("kdim_vdim/param/" + name), name);
  }
  LoadOptions unnamed = options;
  unnamed.prefix = "";
  EXPECT_THAT(message_of([&] { MultiheadAttention::load(kTorchFile, unnamed); }),
              AllOf(HasSubstr("modules; name one as prefix: \""), HasSubstr("more")));
}

TEST_F(ModuleFiles, FindsTheOneModule) {
  add("embedding.weight", {3, 8});
  add_torch("attention.");
  write();
  expect_same_bits(find(load(), "in_proj_weight"), tensor("attention.in_proj_weight"), "found");
  EXPECT_EQ(load().config().num_heads, 2);
  add_torch("other.");
  EXPECT_THAT(error(), HasSubstr("holds 2 modules; name one as prefix: \"attention.\", "
                                 "\"other.\""));
  expect_same_bits(find(load({.prefix = "other."}), "in_proj_weight"),
                   tensor("other.in_proj_weight"), "named");
  EXPECT_THAT(error({.prefix = "third."}),
              AllOf(HasSubstr("prefix: got \"third.\""),
                    HasSubstr("recognised in it: \"attention.\" (nn.MultiheadAttention), "
                              "\"other.\" (nn.MultiheadAttention)")));
  EXPECT_THAT(error({.prefix = "other"}),
              HasSubstr("prefix: got \"other\"; did you mean \"other.\" "
                        "(nn.MultiheadAttention)?"));
}

TEST_F(ModuleFiles, SaysWhatElseIsThere) {
  add_separate("encoder.layer.0.attention.self.", "encoder.layer.0.attention.output.dense");
  EXPECT_THAT(error(), AllOf(HasSubstr("holds no module of this class"),
                             HasSubstr("\"encoder.layer.0.\" (nn.MultiheadAttention, name map "
                                       "bert)")));
  tensors_.clear();
  add("embedding.weight", {3, 8});
  EXPECT_THAT(error(), HasSubstr("no attention module is recognised in it"));
  FromScratchMultiHeadAttention(6, 3).save(path());
  EXPECT_THAT(message_of([&] { load(); }), HasSubstr("\"\" (from scratch)"));
}

TEST_F(ModuleFiles, ReadsBertVitAndLlama) {
  struct Model {
    NameMap names;
    std::string prefix, stem, out;
  };
  const Model models[] = {
      {name_maps::bert(), "encoder.layer.3.", "attention.self.", "attention.output.dense"},
      {name_maps::vit(), "vit.encoder.layer.0.", "attention.attention.", "attention.output.dense"}};
  for (const Model& model : models) {
    tensors_.clear();
    add_separate(model.prefix + model.stem, model.prefix + model.out);
    add(model.prefix + "attention.output.LayerNorm.weight", {8});  // the layer's, not ours
    add(model.prefix + "intermediate.dense.weight", {32, 8});
    write();
    const MultiheadAttention module = load({.names = model.names});
    EXPECT_EQ(module.config().kdim, 8);
    const ConstTensorView weight = find(module, "in_proj_weight"),
                          bias = find(module, "in_proj_bias");
    int64_t row = 0;
    for (const char* part : {"query", "key", "value"}) {
      const std::string name = model.prefix + model.stem + part;
      expect_same_bits(weight.narrow(0, row, 8), tensor(name + ".weight"), name);
      expect_same_bits(bias.narrow(0, row, 8), tensor(name + ".bias"), name);
      row += 8;
    }
    expect_same_bits(find(module, "out_proj.weight"), tensor(model.prefix + model.out + ".weight"),
                     "out");
  }
  tensors_.clear();
  for (const char* part : {"q", "k", "v", "o"}) {
    add(std::string("model.layers.0.self_attn.") + part + "_proj.weight", {8, 8});
  }
  write();
  const MultiheadAttention llama = load({.names = name_maps::llama()});
  EXPECT_FALSE(llama.config().bias);
  expect_same_bits(find(llama, "in_proj_weight").narrow(0, 8, 8),
                   tensor("model.layers.0.self_attn.k_proj.weight"), "k");
}

TEST_F(ModuleFiles, ReadsWithAnyNames) {
  add("attn.Wqkv", {24, 8});
  add("attn.Wo", {8, 8});
  write();
  const NameMap names = {{"attn.Wqkv", "in_proj_weight"}, {"attn.Wo", "out_proj.weight"}};
  expect_same_bits(find(load({.names = names}), "in_proj_weight"), tensor("attn.Wqkv"), "packed");
  EXPECT_THAT(error({.names = {{"attn.Wqkv", "qkv"}}}),
              HasSubstr("names: \"attn.Wqkv\" leads to \"qkv\"; must be one of in_proj_weight, "));
}

TEST_F(ModuleFiles, WidensHalves) {
  for (const DType dtype : {DType::kFloat16, DType::kBFloat16}) {
    tensors_.clear();
    add("in_proj_weight", {24, 8}, dtype);
    add("out_proj.weight", {8, 8}, dtype);
    const uint16_t three_halves = dtype == DType::kFloat16 ? 0x3e00 : 0x3fc0;
    for (Named& named : tensors_) {
      auto* bits = static_cast<uint16_t*>(named.tensor.data());
      std::fill_n(bits, named.tensor.numel(), three_halves);
    }
    write();
    const MultiheadAttention module = load();
    EXPECT_EQ(module.config().dtype, DType::kFloat32);
    for (int64_t i = 0; i < 64; ++i) {
      EXPECT_EQ(find(module, "out_proj.weight").data_as<float>()[i], 1.5f);
    }
  }
}

TEST_F(ModuleFiles, MissingAndExtraTensorsAreListed) {
  add_torch("a.");
  remove("a.out_proj.weight");
  remove("a.out_proj.bias");
  add("a.scale", {1});
  EXPECT_THAT(error(), AllOf(HasSubstr("MultiheadAttention::load: "), HasSubstr(path()),
                             HasSubstr("missing a.out_proj.weight [8, 8]"),
                             HasSubstr("missing a.out_proj.bias [8]"),
                             HasSubstr("extra tensor a.scale [1]")));
  tensors_.clear();
  add_torch();
  add("bias_k", {1, 1, 8});
  EXPECT_THAT(error(), HasSubstr("missing bias_v [1, 1, 8]"));
  // Beside a mapped tensor: a quantised weight must not be read as if it were none.
  tensors_.clear();
  add_separate("attention.self.", "attention.output.dense");
  add("attention.self.query.weight_scale", {1});
  EXPECT_THAT(error({.names = name_maps::bert()}),
              HasSubstr("extra tensor attention.self.query.weight_scale [1]"));
  remove("attention.self.query.weight_scale");
  remove("attention.self.key.bias");
  EXPECT_THAT(error({.names = name_maps::bert()}),
              HasSubstr("missing attention.self.key.bias [8]"));
}

TEST_F(ModuleFiles, WrongShapesAreNamed) {
  add_torch();
  remove("out_proj.bias");
  add("out_proj.bias", {1, 8});
  EXPECT_THAT(error(), HasSubstr("out_proj.bias is [1, 8]; must be [8]"));
  remove("in_proj_weight");
  add("in_proj_weight", {8, 24});
  EXPECT_THAT(error(), HasSubstr("in_proj_weight is [8, 24]; must be [24, 8] (it is stored "
                                 "transposed, as Conv1D layers do)"));
  tensors_.clear();
  add("q_proj.weight", {8, 8});
  add("k_proj.weight", {2, 8});
  add("v_proj.weight", {2, 8});
  add("o_proj.weight", {8, 8});
  EXPECT_THAT(error({.names = name_maps::llama()}),
              HasSubstr("num_heads: got 2; must be one whose heads, of 8 / num_heads rows, make up "
                        "the 2 rows of key and value"));
  remove("v_proj.weight");
  add("v_proj.weight", {8, 8});
  EXPECT_THAT(error({.names = name_maps::llama()}),
              HasSubstr("k_proj.weight is [2, 8]; must be [8, 8] (a transposed weight, or heads of "
                        "unequal number?)"));
}

TEST_F(ModuleFiles, PackedAndSeparateTogetherAreRefused) {
  add_torch();
  add("q_proj_weight", {8, 8});
  EXPECT_THAT(error(), HasSubstr("both in_proj_weight and separate q, k, v weights"));
  const NameMap twice = {{"a.weight", "in_proj_weight"}};
  tensors_.clear();
  add_torch();
  add("a.weight", {24, 8});
  EXPECT_THAT(error({.prefix = "", .names = twice}), Not(HasSubstr("nothing thrown")));
}

TEST_F(ModuleFiles, DTypesMustBeOneAndReal) {
  add_torch();
  remove("out_proj.bias");
  add("out_proj.bias", {8}, DType::kFloat64);
  EXPECT_THAT(error(), HasSubstr("mixed dtypes: in_proj_weight is F32, out_proj.bias is F64"));
  remove("out_proj.bias");
  add("out_proj.bias", {8}, DType::kInt64);
  EXPECT_THAT(error(), HasSubstr("out_proj.bias has dtype I64; must be F32, F64, F16 or BF16"));
}

TEST_F(ModuleFiles, OptionsAreChecked) {
  add_torch();
  write();
  EXPECT_THAT(message_of([&] { MultiheadAttention::load(path()); }), HasSubstr("layout: not said"));
  EXPECT_THAT(message_of([&] { load({.num_heads = 3}); }),
              HasSubstr("num_heads: got 3; must be 2, by the file's __metadata__"));
  EXPECT_THAT(message_of([&] { load({.num_heads = -2}); }),
              HasSubstr("num_heads: got -2; must be greater than 0"));
  EXPECT_EQ(load({.num_heads = 2}).config().num_heads, 2);
  EXPECT_THAT(message_of([&] { load({.dropout = 2}); }), HasSubstr("dropout: got 2"));
  EXPECT_TRUE(load({.add_zero_attn = true}).config().add_zero_attn);
  for (const std::string heads : {"", "two", "2.0", "0", "-2", " 2", "99999999999999999999"}) {
    write({{"num_heads", heads}});
    EXPECT_THAT(message_of([&] { load(); }),
                HasSubstr(message("__metadata__ has \"", heads, "\"")));
    EXPECT_EQ(load({.num_heads = 4}).config().num_heads, 4) << heads;
  }
  write({});
  EXPECT_THAT(message_of([&] { load(); }), HasSubstr("not in the file's __metadata__"));
  EXPECT_EQ(load({.num_heads = 4}).config().num_heads, 4);
  EXPECT_THAT(message_of([&] { load({.num_heads = 3}); }),
              HasSubstr("num_heads: got 3; must be a divisor of embed_dim 8"));
}

TEST_F(ModuleFiles, HostileNamesAreEscaped) {
  add_torch();
  add("left\u202eright", {1});
  EXPECT_THAT(error(), HasSubstr("extra tensor left\\u202eright [1]"));
  EXPECT_THAT(error({.prefix = "\x1b[31m"}), HasSubstr("prefix: got \"\\x1b[31m\""));
}

TEST_F(ModuleFiles, MissingFilesAreIoErrors) { EXPECT_THROW(load(), IoError); }

TEST_F(ModuleFiles, RecognisesEveryLayout) {
  add_torch("first.");
  add_separate("bert.attention.self.", "bert.attention.output.dense");
  add_separate("vit.attention.attention.", "vit.attention.output.dense");
  for (const char* part : {"q", "k", "v", "o"}) add(std::string(part) + "_proj.weight", {8, 8});
  for (const char* part : {"q_linear", "k_linear", "v_linear"}) {
    add(std::string("full.") + part + ".weight", {24, 8});
    add(std::string("full.") + part + ".bias", {24});
  }
  add("full.fc_out.weight", {8, 24});
  add("full.fc_out.bias", {8});
  add("broken.in_proj_weight", {24, 8});
  write();
  std::vector<std::string> found;
  for (const RecognisedModule& module : recognise_modules(SafetensorsFile(path()))) {
    found.push_back(message(module.prefix, "|", module.map, "|", layout_name(module.layout), "|",
                            module.embed_dim, "|", module.num_heads, "|", module.dtype,
                            module.has_bias ? "|bias" : "", module.problems.empty() ? "" : "|",
                            module.problems.empty() ? "" : module.problems.front()));
  }
  EXPECT_THAT(found, ElementsAre("first.||nn.MultiheadAttention|8|2|F32|bias",
                                 "bert.|bert|nn.MultiheadAttention|8|2|F32|bias",
                                 "vit.|vit|nn.MultiheadAttention|8|2|F32|bias",
                                 "|llama|nn.MultiheadAttention|8|2|F32",
                                 "full.||from scratch, full head width|8|3|F32|bias",
                                 "broken.||nn.MultiheadAttention|8|2|F32|missing "
                                 "broken.out_proj.weight [8, 8]"));
}

// As polyhead::nn saves it: the moments have the shapes of the module, and are none.
TEST_F(ModuleFiles, ACheckpointsMomentsAreNoModules) {
  for (const char* moments : {"", "adamw.mean.", "adamw.square."}) add_torch(moments);
  write({{"num_heads", "2"}});
  EXPECT_EQ(recognise_modules(SafetensorsFile(path())).size(), 3U);  // any other file's tensors
  EXPECT_THAT(error(), HasSubstr("holds 3 modules; name one as prefix"));
  write({{"num_heads", "2"}, {"polyhead.checkpoint", "1"}});
  const std::vector<RecognisedModule> modules = recognise_modules(SafetensorsFile(path()));
  ASSERT_EQ(modules.size(), 1U);
  EXPECT_EQ(modules.front().prefix, "");
  EXPECT_THAT(modules.front().problems, ElementsAre());
  expect_same_bits(load().state_dict().front().second, tensor("in_proj_weight"), "in_proj_weight");
}

std::vector<SafetensorsEntry> many_modules(int count) {
  std::vector<SafetensorsEntry> entries;
  for (int i = 0; i < count; ++i) {
    entries.push_back({.name = message("l.", i, ".in_proj_weight"), .dtype = "F32", .shape = {0}});
  }
  return entries;
}

double seconds_to_recognise(int count) {
  const std::vector<SafetensorsEntry> entries = many_modules(count);
  const std::clock_t start = std::clock();
  EXPECT_EQ(recognise_modules(entries, {}).size(), entries.size());
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

// Growth, not seconds: what is quadratic takes 16 times as long, under a sanitizer too.
TEST(RecogniseModules, TakesNoLongerThanTheListIsLong) {
  const double few = seconds_to_recognise(10'000);
  EXPECT_LT(seconds_to_recognise(40'000), 9 * few);
}

TEST(RecogniseModules, KeepsTheOrderOfTheFileNotOfTheAlphabet) {
  const std::vector<RecognisedModule> modules = recognise_modules(many_modules(12), {});
  ASSERT_EQ(modules.size(), 12U);
  EXPECT_EQ(modules.front().prefix, "l.0.");
  EXPECT_EQ(modules.back().prefix, "l.11.");
}

TEST(RecogniseModules, NamesTheFirstExtraTensorsAndCountsTheOthers) {
  std::vector<SafetensorsEntry> entries;
  std::string nested;
  for (int i = 0; i < 1'000; ++i) {  // every prefix holds all that follow
    entries.push_back({.name = nested + "in_proj_weight", .dtype = "F32", .shape = {0}});
    nested += "a.";
  }
  const std::vector<RecognisedModule> modules = recognise_modules(entries, {});
  ASSERT_EQ(modules.size(), entries.size());
  EXPECT_LT(modules.front().problems.size(), 25U);
  EXPECT_THAT(modules.front().problems, ::testing::Contains("and 983 more extra tensors"));
}

// One module of a file that states this as its number of heads.
RecognisedModule with_heads(const std::string& num_heads) {
  const std::vector<SafetensorsEntry> entries = {
      {.name = "in_proj_weight", .dtype = "F32", .shape = {24, 8}},
      {.name = "out_proj.weight", .dtype = "F32", .shape = {8, 8}}};
  return recognise_modules(entries, {{"num_heads", num_heads}}).at(0);
}

TEST(RecogniseModules, ANumberOfHeadsIsUnknownOrAProblemWhereItCannotBeUsed) {
  EXPECT_EQ(with_heads("4").num_heads, 4);
  EXPECT_THAT(with_heads("4").problems, ElementsAre());
  EXPECT_THAT(
      with_heads("3").problems,
      ElementsAre("num_heads 3 of __metadata__ does not fit: must be a divisor of embed_dim "
                  "8"));
  for (const std::string text : {"0", "-8", "8.0", "eight", ""}) {
    EXPECT_EQ(with_heads(text).num_heads, 0) << text;
    EXPECT_THAT(with_heads(text).problems, ElementsAre()) << text;
  }
}

TEST(RecogniseModules, ADTypeThatIsNotFloatingIsStillNamed) {
  const std::vector<SafetensorsEntry> entries = {
      {.name = "in_proj_weight", .dtype = "I64", .shape = {24, 8}},
      {.name = "out_proj.weight", .dtype = "I64", .shape = {8, 8}}};
  EXPECT_EQ(recognise_modules(entries, {}).at(0).dtype, "I64");
}

}  // namespace
}  // namespace polyhead
