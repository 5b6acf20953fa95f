// Both modules against torch's float64 answers (tools/make_fixtures.py), case by case; the same
// cases in float32 against the double reference.
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include <polyhead/io.h>
#include <polyhead/multihead_attention.h>
#include "module/module_reference.h"
#include "module/module_test_tools.h"
#include "testing/compare.h"

namespace polyhead {
namespace {

using oracle::converted;

struct Case {
  std::string name;
  std::string kind;                            // "mha" or "scratch"
  std::map<std::string, std::string> options;  // embed_dim=16 ...
};

const SafetensorsFile& file() {
  static const SafetensorsFile file(POLYHEAD_TEST_DATA "/module_fixtures.safetensors");
  return file;
}

std::vector<Case> cases() {
  std::vector<Case> result;
  std::istringstream lines(file().metadata().at("cases"));
  std::string line;
  std::getline(lines, line);  // torch's version
  while (std::getline(lines, line)) {
    std::istringstream words(line);
    Case c;
    words >> c.name >> c.kind;
    for (std::string word; words >> word;) {
      const size_t equals = word.find('=');
      c.options[word.substr(0, equals)] = word.substr(equals + 1);
    }
    result.push_back(c);
  }
  return result;
}

// One case in one dtype. Masks keep the type they have in the file, unless it is wider.
class Loaded {
 public:
  Loaded(const Case& c, DType dtype) : case_(c), dtype_(dtype) {}

  int64_t number(const std::string& key, int64_t otherwise) const {
    const auto at = case_.options.find(key);
    return at == case_.options.end() ? otherwise
           : at->second == "True"    ? 1
                                     : std::stoll(at->second);
  }
  bool is(const std::string& key, const std::string& value) const {
    const auto at = case_.options.find(key);
    return at != case_.options.end() && at->second == value;
  }
  bool has(const std::string& name) const { return file().find(case_.name + "/" + name); }

  Tensor read(const std::string& name) const {
    if (!has(name)) return {};
    Tensor tensor = file().read(case_.name + "/" + name);
    return tensor.dtype() == DType::kFloat64 ? converted(tensor, dtype_) : tensor;
  }
  Tensor read_exact(const std::string& name) const { return file().read(case_.name + "/" + name); }

  template <class Module>
  void fill(Module& module) const {
    for (const auto& [name, view] : module.state_dict()) {
      module.set_parameter(name, read("param/" + name));
    }
  }

 private:
  const Case& case_;
  DType dtype_;
};

MultiheadAttention make_mha(const Loaded& c, DType dtype) {
  MultiheadAttention module(
      {.embed_dim = c.number("embed_dim", 0),
       .num_heads = c.number("num_heads", 0),
       .layout = c.is("layout", "sequence_first") ? Layout::kSequenceFirst : Layout::kBatchFirst,
       .bias = c.number("bias", 1) != 0,
       .add_bias_kv = c.number("add_bias_kv", 0) != 0,
       .add_zero_attn = c.number("add_zero_attn", 0) != 0,
       .kdim = c.number("kdim", 0),
       .vdim = c.number("vdim", 0),
       .dtype = dtype});
  c.fill(module);
  return module;
}

struct Answer {
  Tensor out, weights;
  ModuleReference reference;
};

Answer answer(const Case& spec, DType dtype, WeightsMode mode) {
  const Loaded c(spec, dtype);
  if (spec.kind == "mha") {
    const MultiheadAttention module = make_mha(c, dtype);
    const Tensor query = c.read("in/query"), key = c.read("in/key"), value = c.read("in/value");
    const Tensor attn = c.read("in/attn_mask"), padding = c.read("in/key_padding_mask");
    const ForwardOptions options{.attn_mask = attn.view(),
                                 .key_padding_mask = padding.view(),
                                 .is_causal = c.number("is_causal", 0) != 0,
                                 .causal_align = c.is("align", "bottom_right")
                                                     ? CausalAlign::kBottomRight
                                                     : CausalAlign::kTopLeft,
                                 .need_weights = mode};
    MultiheadAttention::Result result = module.forward(query, key, value, options);
    return {std::move(result.out), std::move(result.weights),
            module_forward_reference(module, query, key, value, options)};
  }
  FromScratchMultiHeadAttention module(
      c.number("embed_size", 0), c.number("num_heads", 0),
      c.number("full", 0) != 0 ? HeadWidth::kFull : HeadWidth::kSplit, 0, dtype);
  c.fill(module);
  const Tensor q = c.read("in/q"), k = c.read("in/k"), v = c.read("in/v"), mask = c.read("in/mask");
  Answer result{
      {}, {}, module_forward_reference(module, q, k, v, mask.view(), {.need_weights = mode})};
  result.out = module.forward(q, k, v, mask.view());
  if (mode != WeightsMode::kNone) {
    result.weights = Tensor(dtype, result.reference.weights.shape());
    module.forward_into(q, k, v, mask.view(), result.out, result.weights);
  }
  return result;
}

constexpr WeightsMode kModes[] = {WeightsMode::kNone, WeightsMode::kAverage, WeightsMode::kPerHead};

TEST(ModuleFixture, HoldsEveryCase) { EXPECT_GT(cases().size(), 80u); }

TEST(ModuleFixture, Float64IsTorch) {
  for (const Case& c : cases()) {
    const Loaded loaded(c, DType::kFloat64);
    for (const WeightsMode mode : kModes) {
      const std::string name = mode == WeightsMode::kAverage ? "average" : "per_head";
      if (mode != WeightsMode::kNone && !loaded.has(name)) continue;
      const Answer got = answer(c, DType::kFloat64, mode);
      const Tensor out = loaded.read_exact("out");
      oracle::expect_within_budget(got.out, out, got.reference.out_budget,
                                   {"module.torch.float64.out", c.name});
      oracle::expect_within_budget(got.reference.out, out, got.reference.out_budget,
                                   {"module.torch.reference.out", c.name});
      if (mode == WeightsMode::kNone) continue;
      const Tensor weights = loaded.read_exact(name);
      oracle::expect_within_budget(got.weights, weights, got.reference.weights_budget,
                                   {"module.torch.float64.weights", c.name + " " + name});
      oracle::expect_within_budget(got.reference.weights, weights, got.reference.weights_budget,
                                   {"module.torch.reference.weights", c.name + " " + name});
    }
  }
}

TEST(ModuleFixture, Float32IsTheReference) {
  for (const Case& c : cases()) {
    for (const WeightsMode mode : kModes) {
      const Answer got = answer(c, DType::kFloat32, mode);
      oracle::expect_within_budget(got.out, got.reference.out, got.reference.out_budget,
                                   {"module.float32.out", c.name});
      if (mode == WeightsMode::kNone) continue;
      oracle::expect_within_budget(got.weights, got.reference.weights, got.reference.weights_budget,
                                   {"module.float32.weights", c.name});
    }
  }
}

}  // namespace
}  // namespace polyhead
