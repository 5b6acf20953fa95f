#include <polyhead/nn/checkpoint.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include <polyhead/error.h>
#include <polyhead/io.h>
#include "nn/checks.h"
#include "nn/finite.h"

namespace polyhead::nn {
namespace {

constexpr char kFormat[] = "polyhead.checkpoint";
constexpr char kVersion[] = "1";
constexpr std::string_view kNote = "note.";
constexpr char kMean[] = "adamw.mean.", kSquare[] = "adamw.square.";

using Metadata = std::map<std::string, std::string>;

// Shortest text that reads back as the same number.
template <class Number>
std::string text_of(Number x) {
  char text[64];
  return {text, std::to_chars(text, text + sizeof text, x).ptr};
}

class MetadataReader {
 public:
  explicit MetadataReader(const SafetensorsFile& file) : file_(file) {
    if (text(kFormat) != kVersion) {
      fail(message(kFormat, " is version ", text(kFormat)), message("version ", kVersion));
    }
  }

  [[noreturn]] void fail(const std::string& got, const std::string& need) const {
    throw IoError(message("load_checkpoint: ", file_.path(), ": ", got, "; must be ", need));
  }

  const std::string& text(const std::string& key) const {
    const auto found = file_.metadata().find(key);
    if (found == file_.metadata().end()) fail("has no " + key, "a checkpoint");
    return found->second;
  }

  template <class Number>
  void read(const char* key, Number* to) const {
    const std::string& from = text(key);
    const auto [end, error] = std::from_chars(from.data(), from.data() + from.size(), *to);
    if (error != std::errc() || end != from.data() + from.size()) {
      fail(message(key, " is no number of its kind"), "what save_checkpoint wrote");
    }
  }

 private:
  const SafetensorsFile& file_;
};

void add_options(const AdamWOptions& options, Metadata* to) {
  (*to)["adamw.learning_rate"] = text_of(options.learning_rate);
  (*to)["adamw.beta1"] = text_of(options.beta1);
  (*to)["adamw.beta2"] = text_of(options.beta2);
  (*to)["adamw.epsilon"] = text_of(options.epsilon);
  (*to)["adamw.weight_decay"] = text_of(options.weight_decay);
}

AdamWOptions read_options(const MetadataReader& from) {
  AdamWOptions options;
  from.read("adamw.learning_rate", &options.learning_rate);
  from.read("adamw.beta1", &options.beta1);
  from.read("adamw.beta2", &options.beta2);
  from.read("adamw.epsilon", &options.epsilon);
  from.read("adamw.weight_decay", &options.weight_decay);
  return options;
}

// The names of a parameter's three tensors.
struct Names {
  std::string value, mean, square;
  explicit Names(const std::string& name)
      : value(name), mean(kMean + name), square(kSquare + name) {}
};

Tensor read_like(const SafetensorsFile& file, const MetadataReader& metadata,
                 const std::string& name, const TensorView& model) {
  const SafetensorsEntry* entry = file.find(name);
  if (entry == nullptr) metadata.fail(message("has no tensor ", name), "of this model");
  const char* dtype = model.dtype() == DType::kFloat32 ? "F32" : "F64";
  if (entry->dtype != dtype) {
    metadata.fail(message(name, ": dtype is ", entry->dtype), message("the model's ", dtype));
  }
  if (!std::ranges::equal(entry->shape, model.shape())) {
    metadata.fail(message(name, ": shape is ", shape_text(entry->shape)),
                  message("the model's ", model.shape_string()));
  }
  Tensor tensor = file.read(name);
  const std::string got = not_finite_text(tensor);
  if (!got.empty()) metadata.fail(message(name, ": ", got), "finite");
  return tensor;
}

// All that is to be changed, read before anything is.
struct Loaded {
  std::vector<Tensor> values;
  std::vector<AdamW::Moments> moments;
  AdamWOptions options;
  int64_t steps = 0;
  TrainingState state;
};

Loaded read_all(const SafetensorsFile& file, const ParameterList& parameters) {
  const MetadataReader metadata(file);
  if (file.entries().size() != 3 * parameters.size()) {
    metadata.fail(message("holds ", file.entries().size(), " tensors"),
                  message(3 * parameters.size(), ", 3 for each parameter of the model"));
  }
  Loaded loaded;
  for (const Parameter& each : parameters) {
    const Names names(each.name);
    loaded.values.push_back(read_like(file, metadata, names.value, each.value));
    loaded.moments.push_back({.mean = read_like(file, metadata, names.mean, each.value),
                              .square = read_like(file, metadata, names.square, each.value)});
  }
  loaded.options = read_options(metadata);
  metadata.read("adamw.steps", &loaded.steps);
  metadata.read("step", &loaded.state.step);
  if (loaded.state.step < 0) metadata.fail(message("step is ", loaded.state.step), "0 or more");
  metadata.read("random.seed", &loaded.state.random.seed);
  metadata.read("random.counter", &loaded.state.random.counter);
  for (const auto& [key, text] : file.metadata()) {
    if (key.starts_with(kNote)) loaded.state.notes[key.substr(kNote.size())] = text;
  }
  return loaded;
}

}  // namespace

void save_checkpoint(const std::string& path, const AdamW& optimizer, const TrainingState& state) {
  const ParameterList& parameters = optimizer.parameters();
  const Require require("save_checkpoint");
  require_finite(require, parameters, &Parameter::value, "value");
  if (state.step < 0) require.fail("state.step", message(state.step), "0 or more");
  NamedTensors tensors;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const Names names(parameters[i].name);
    tensors.emplace_back(names.value, parameters[i].value);
    tensors.emplace_back(names.mean, optimizer.moments()[i].mean);
    tensors.emplace_back(names.square, optimizer.moments()[i].square);
  }
  Metadata metadata{{kFormat, kVersion},
                    {"step", text_of(state.step)},
                    {"random.seed", text_of(state.random.seed)},
                    {"random.counter", text_of(state.random.counter)},
                    {"adamw.steps", text_of(optimizer.steps())}};
  add_options(optimizer.options(), &metadata);
  for (const auto& [key, text] : state.notes) metadata[std::string(kNote) + key] = text;
  save_safetensors(path, tensors, metadata);
}

TrainingState load_checkpoint(const std::string& path, AdamW& optimizer) {
  Loaded loaded = read_all(SafetensorsFile(path), optimizer.parameters());
  try {
    optimizer.restore(loaded.steps, std::move(loaded.moments), loaded.options);
  } catch (const InvalidArgument& error) {  // of numbers that no AdamW has
    throw IoError(message("load_checkpoint: ", path, ": ", error.what()));
  }
  for (size_t i = 0; i < loaded.values.size(); ++i) {
    const TensorView& to = optimizer.parameters()[i].value;
    std::memcpy(to.data(), loaded.values[i].data(),
                static_cast<size_t>(to.numel()) * dtype_bytes(to.dtype()));
  }
  optimizer.parameters().updated();
  return std::move(loaded.state);
}

}  // namespace polyhead::nn
