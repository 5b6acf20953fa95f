// One training step of a module, for test_gradients.py: what goes in and what comes out are
// safetensors files.
//
//   module_gradients IN OUT
//
// IN has query, key, value (key absent: query; value absent: key), masks, d_out, d_weights and
// parameter/NAME; its metadata has the configuration, or names a file that the module is in. OUT
// has out, weights, and the gradients by the names of what they are the gradients of. An input that
// stands for several receives their sum.
#include <cstdio>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include <polyhead/polyhead.h>

namespace {

using polyhead::ConstTensorView;
using polyhead::Tensor;
using polyhead::TensorView;

class Request {
 public:
  explicit Request(const std::string& path) : file_(path) {}

  Tensor tensor(const std::string& name) const {
    return file_.find(name) == nullptr ? Tensor() : file_.read(name);
  }
  std::string word(const std::string& key) const { return file_.metadata().at(key); }
  int64_t number(const std::string& key) const { return std::stoll(word(key)); }
  bool flag(const std::string& key) const { return word(key) == "True"; }
  polyhead::DType dtype() const { return tensor("query").dtype(); }
  polyhead::WeightsMode weights() const {
    const std::string mode = word("need_weights");
    return mode == "none"      ? polyhead::WeightsMode::kNone
           : mode == "average" ? polyhead::WeightsMode::kAverage
                               : polyhead::WeightsMode::kPerHead;
  }

  template <class Module>
  void fill(Module& module) const {
    for (const auto& [name, view] : module.parameters()) {
      module.set_parameter(name, tensor("parameter/" + name));
    }
  }

 private:
  polyhead::SafetensorsFile file_;
};

// The inputs and cotangents of the step, and memory for the gradients of what has one.
struct Step {
  explicit Step(const Request& request)
      : query(request.tensor("query")),
        key(request.tensor("key")),
        value(request.tensor("value")),
        attn_mask(request.tensor("attn_mask")),
        padding(request.tensor("key_padding_mask")),
        d_out(request.tensor("d_out")),
        d_weights(request.tensor("d_weights")),
        dtype(query.dtype()) {
    add("query", query, &to.d_query);
    to.d_key = to.d_query;
    if (key.defined()) add("key", key, &to.d_key);
    to.d_value = to.d_key;
    if (value.defined()) add("value", value, &to.d_value);
    add("attn_mask", attn_mask, &to.d_attn_mask);
    add("key_padding_mask", padding, &to.d_key_padding_mask);
  }

  void add(const char* name, const Tensor& input, TensorView* target) {
    const bool real = input.defined() && (input.dtype() == polyhead::DType::kFloat32 ||
                                          input.dtype() == polyhead::DType::kFloat64);
    if (!real) return;
    results.emplace_back(name, Tensor(dtype, input.shape()));
    *target = results.back().second;
  }
  ConstTensorView key_view() const { return key.defined() ? key.view() : query.view(); }
  ConstTensorView value_view() const { return value.defined() ? value.view() : key_view(); }

  Tensor query, key, value, attn_mask, padding, d_out, d_weights;
  polyhead::DType dtype;
  polyhead::InputGradients to;
  polyhead::TrainingContext context;
  std::vector<std::pair<std::string, Tensor>> results;
};

// Backward, and everything into a file.
template <class Module>
void finish(const Module& module, Step& step, const Tensor& out, const Tensor& weights,
            const std::string& path) {
  const polyhead::ParameterGradients gradients(module.state_dict());
  module.backward(step.context, {step.d_out.view(), step.d_weights.view()}, step.to,
                  gradients.views());
  polyhead::NamedTensors named = {{"out", out}};
  if (weights.defined()) named.emplace_back("weights", weights);
  for (const auto& [name, tensor] : step.results) named.emplace_back("d/" + name, tensor);
  for (const auto& [name, view] : gradients.views()) {
    named.emplace_back("d/parameter/" + name, view);
  }
  polyhead::save_safetensors(path, named);
}

void run_mha(const Request& request, const std::string& path) {
  polyhead::MultiheadAttention module({.embed_dim = request.number("embed_dim"),
                                       .num_heads = request.number("num_heads"),
                                       .layout = request.flag("batch_first")
                                                     ? polyhead::Layout::kBatchFirst
                                                     : polyhead::Layout::kSequenceFirst,
                                       .bias = request.flag("bias"),
                                       .add_bias_kv = request.flag("add_bias_kv"),
                                       .add_zero_attn = request.flag("add_zero_attn"),
                                       .kdim = request.number("kdim"),
                                       .vdim = request.number("vdim"),
                                       .dtype = request.dtype()});
  request.fill(module);
  Step step(request);
  const auto [out, weights] =
      module.forward(step.query, step.key_view(), step.value_view(),
                     {.attn_mask = step.attn_mask.view(),
                      .key_padding_mask = step.padding.view(),
                      .is_causal = request.flag("is_causal"),
                      .causal_align = request.word("causal_align") == "top-left"
                                          ? polyhead::CausalAlign::kTopLeft
                                          : polyhead::CausalAlign::kBottomRight,
                      .need_weights = request.weights()},
                     &step.context);
  finish(module, step, out, weights, path);
}

void run_scratch(const Request& request, const std::string& path) {
  const auto width =
      request.flag("full") ? polyhead::HeadWidth::kFull : polyhead::HeadWidth::kSplit;
  polyhead::FromScratchMultiHeadAttention module(
      request.number("embed_dim"), request.number("num_heads"), width, 0, request.dtype());
  request.fill(module);
  Step step(request);
  const Tensor out = module.forward(step.query, step.key_view(), step.value_view(),
                                    step.attn_mask.view(), &step.context);
  finish(module, step, out, {}, path);
}

// A LLaMA-style file, whose metadata says what its shapes do not: causal self-attention.
void run_llama(const Request& request, const std::string& path) {
  const auto module = polyhead::MultiheadAttention::load(
      request.word("module"),
      {.layout = polyhead::Layout::kBatchFirst, .names = polyhead::name_maps::llama()});
  Step step(request);
  const auto [out, weights] = module.forward(step.query, step.query, step.query,
                                             {.is_causal = true,
                                              .query_position = request.number("position"),
                                              .key_position = request.number("position")},
                                             &step.context);
  finish(module, step, out, weights, path);
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 3) return 2;
  const Request request(argv[1]);
  const std::string kind = request.word("class");
  if (kind == "mha") run_mha(request, argv[2]);
  if (kind == "scratch") run_scratch(request, argv[2]);
  if (kind == "llama") run_llama(request, argv[2]);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "module_gradients: %s\n", error.what());
  return 1;
}
