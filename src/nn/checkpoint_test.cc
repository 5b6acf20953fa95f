// Training that stops and goes on from a checkpoint has the bits of training that did not stop; a
// checkpoint that cannot be written or read changes nothing.
#include <sys/resource.h>
#include <csignal>
#include <limits>

#include "io/test_files.h"
#include "nn/nn_test_tools.h"

namespace polyhead::nn {
namespace {

// Two linear layers around a GELU learn to tell rows of random numbers from each other.
class Model {
 public:
  explicit Model(int64_t width = 20) : width_(width), optimizer_(all_parameters()) {}

  double train_step() {
    const Tensor x = drawn_rows(), targets = drawn_targets();
    const Tensor inner = widen_.forward(x), bent = gelu(inner), logits = narrow_.forward(bent);
    Tensor d_logits(logits.dtype(), logits.shape()), d_bent(bent.dtype(), bent.shape());
    const double loss = cross_entropy(logits, targets, d_logits);
    narrow_.backward(bent, d_logits, d_bent);
    gelu_backward(inner, d_bent, d_bent);
    widen_.backward(x, d_bent, {});
    clip_gradient_norm(optimizer_.parameters(), 0.5);
    optimizer_.set_options({.learning_rate = 0.01 / static_cast<double>(1 + optimizer_.steps())});
    optimizer_.step();
    ++state_.step;
    return loss;
  }

  void save(const std::string& path) const { save_checkpoint(path, optimizer_, state_); }
  void load(const std::string& path) { state_ = load_checkpoint(path, optimizer_); }

  const TrainingState& state() const { return state_; }
  TrainingState& state() { return state_; }
  const AdamW& optimizer() const { return optimizer_; }

 private:
  ParameterList all_parameters() {
    ParameterList all;
    all.append("widen.", widen_.parameters());
    all.append("narrow.", narrow_.parameters());
    return all;
  }
  Tensor drawn_rows() {
    Tensor x(DType::kFloat32, {6, width_});
    oracle::fill_with(x, [&](const Index&) { return state_.random.normal(); });
    return x;
  }
  Tensor drawn_targets() {
    Tensor targets(DType::kInt64, {6});
    for (int i = 0; i < 6; ++i) targets.data_as<int64_t>()[i] = state_.random.below(5);
    return targets;
  }

  int64_t width_;
  TrainingState state_{.random = {.seed = 3}};
  Random initial_{.seed = 4};
  Linear widen_{{.in_features = width_, .out_features = 30}, initial_};
  Linear narrow_{{.in_features = 30, .out_features = 5}, initial_};
  AdamW optimizer_;
};

void expect_same(const Model& a, const Model& b) {
  const ParameterList &left = a.optimizer().parameters(), &right = b.optimizer().parameters();
  for (size_t i = 0; i < left.size(); ++i) {
    oracle::expect_same_bits(left[i].value, right[i].value, left[i].name);
    oracle::expect_same_bits(a.optimizer().moments()[i].mean, b.optimizer().moments()[i].mean,
                             "mean");
    oracle::expect_same_bits(a.optimizer().moments()[i].square, b.optimizer().moments()[i].square,
                             "square");
  }
  EXPECT_EQ(a.optimizer().steps(), b.optimizer().steps());
  EXPECT_EQ(a.optimizer().options().learning_rate, b.optimizer().options().learning_rate);
  EXPECT_EQ(a.state().step, b.state().step);
  EXPECT_EQ(a.state().random.counter, b.state().random.counter);
}

class Checkpoints : public testing::Test {
 protected:
  Checkpoints() {
    for (int i = 0; i < 5; ++i) model_.train_step();
    model_.state().notes["data"] = "the \"corpus\"\n";
    model_.save(path_);
  }

  // load says so, and leaves a trained model as it was.
  void expect_refused(const std::string& path, const std::string& why) {
    Model other, untouched;
    other.train_step();
    untouched.train_step();
    const std::string got = refusal<IoError>([&] { other.load(path); });
    EXPECT_NE(got.find(why), got.npos) << got;
    EXPECT_NE(got.find(path), got.npos) << got;
    expect_same(other, untouched);
  }

  // The checkpoint with other metadata.
  std::string changed(const std::string& key, const char* value) {
    auto metadata = SafetensorsFile(path_).metadata();
    metadata.erase(key);
    if (value) metadata[key] = value;
    return rewritten(metadata, "", 0);
  }
  // With x as element 2 of a tensor.
  std::string changed_tensor(const std::string& name, float x) {
    return rewritten(SafetensorsFile(path_).metadata(), name, x);
  }
  std::string rewritten(const std::map<std::string, std::string>& metadata, const std::string& name,
                        float x) {
    const SafetensorsFile file(path_);
    std::vector<Tensor> tensors;
    NamedTensors named;
    for (const SafetensorsEntry& entry : file.entries()) {
      tensors.push_back(file.read(entry.name));
      if (entry.name == name) tensors.back().data_as<float>()[2] = x;
    }
    for (size_t i = 0; i < tensors.size(); ++i) {
      named.emplace_back(file.entries()[i].name, std::as_const(tensors[i]).view());
    }
    save_safetensors(folder_.path("changed.safetensors"), named, metadata);
    return folder_.path("changed.safetensors");
  }

  TestFolder folder_;
  const std::string path_ = folder_.path("run.safetensors");
  Model model_;
};

TEST_F(Checkpoints, TrainingGoesOnWithTheSameBits) {
  Model resumed;
  resumed.load(path_);
  EXPECT_EQ(resumed.state().step, 5);
  EXPECT_EQ(resumed.state().notes.at("data"), "the \"corpus\"\n");
  expect_same(resumed, model_);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(resumed.train_step(), model_.train_step());
  expect_same(resumed, model_);
  Model fresh;
  EXPECT_NE(fresh.train_step(), model_.train_step());
}

TEST_F(Checkpoints, ParametersStandUnderTheirNames) {
  const SafetensorsFile file(path_);
  EXPECT_EQ(file.entries().size(), 12u);
  oracle::expect_same_bits(file.read("widen.weight"), model_.optimizer().parameters()[0].value,
                           "widen.weight");
}

TEST_F(Checkpoints, TruncatedAnywhereIsRefused) {
  const std::string bytes = file_bytes(path_);
  for (size_t i = 0; i < 16; ++i) {
    const std::string cut =
        folder_.write("cut.safetensors", bytes.substr(0, bytes.size() * i / 16));
    expect_refused(cut, "");
  }
  expect_refused(folder_.write("cut.safetensors", bytes.substr(0, bytes.size() - 1)), "");
  expect_refused(folder_.path("missing.safetensors"), "No such file");
}

TEST_F(Checkpoints, ForeignFilesAreRefused) {
  expect_refused(changed("polyhead.checkpoint", nullptr), "has no polyhead.checkpoint");
  expect_refused(changed("polyhead.checkpoint", "2"), "is version 2; must be version 1");
  expect_refused(changed("step", nullptr), "has no step");
  expect_refused(changed("step", "five"), "step is no number of its kind");
  expect_refused(changed("random.counter", "-1"), "random.counter is no number of its kind");
  expect_refused(changed("adamw.beta1", "1.5"), "beta1: 1.5; must be in [0, 1)");
  expect_refused(changed("adamw.steps", "-3"), "steps: -3; must be 0 or more");
  Model wider(21);
  const std::string other = folder_.path("wider.safetensors");
  wider.save(other);
  expect_refused(other, "widen.weight: shape is [30, 21]; must be the model's [30, 20]");
}

TEST_F(Checkpoints, NumbersThatNoTrainingComesToAreRefused) {
  const float inf = std::numeric_limits<float>::infinity();
  for (const char* name : {"widen.weight", "adamw.mean.widen.bias", "adamw.square.narrow.weight"}) {
    expect_refused(changed_tensor(name, std::nanf("")), message(name, ": element 2 is nan"));
    expect_refused(changed_tensor(name, -inf), message(name, ": element 2 is infinite"));
  }
  expect_refused(changed_tensor("adamw.square.narrow.weight", -0.5F),
                 "square of narrow.weight: element 2 is -0.5; must be 0 or more");
  expect_refused(changed("step", "-3"), "step is -3; must be 0 or more");
  model_.state().step = -1;
  EXPECT_EQ(refusal<InvalidArgument>([&] { model_.save(path_); }),
            "save_checkpoint: state.step: -1; must be 0 or more");
}

TEST_F(Checkpoints, OtherTensorsAreRefused) {
  Linear one(random_tensor(DType::kFloat32, {3, 2}, 1), {});
  AdamW optimizer(one.parameters());
  const std::string small = folder_.path("small.safetensors");
  save_checkpoint(small, optimizer, {});
  expect_refused(small, "holds 3 tensors; must be 12, 3 for each parameter of the model");
  Linear named(random_tensor(DType::kFloat32, {3, 2}, 1), {});
  ParameterList prefixed;
  prefixed.append("x.", named.parameters());
  AdamW renamed(prefixed);
  const std::string got = refusal<IoError>([&] { load_checkpoint(small, renamed); });
  EXPECT_NE(got.find("has no tensor x.weight; must be of this model"), got.npos) << got;
  Linear twice(random_tensor(DType::kFloat64, {3, 2}, 1), {});
  AdamW in_double(twice.parameters());
  const std::string wide = refusal<IoError>([&] { load_checkpoint(small, in_double); });
  EXPECT_NE(wide.find("weight: dtype is F32; must be the model's F64"), wide.npos) << wide;
}

// A file may grow to some bytes only: what a full disk looks like to the program.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{.rlim_cur = bytes, .rlim_max = before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  rlimit before_{};
  void (*handler_)(int);
};

TEST_F(Checkpoints, WhereSavingFailsTheOldOneIsIntact) {
  const std::string before = file_bytes(path_);
  model_.train_step();
  const size_t files = folder_.file_count();
  for (size_t bytes = 0; bytes < before.size(); bytes += before.size() / 7) {
    const FileSizeLimit limit(bytes);
    const std::string got = refusal<IoError>([&] { model_.save(path_); });
    EXPECT_NE(got.find(path_), got.npos) << got;
  }
  EXPECT_EQ(
      refusal<IoError>([&] { model_.save(folder_.path("none/run.safetensors")); }).find("acc"),
      std::string::npos);
  EXPECT_EQ(file_bytes(path_), before);
  EXPECT_EQ(folder_.file_count(), files);
  model_.save(path_);
  EXPECT_NE(file_bytes(path_), before);
}

TEST_F(Checkpoints, ModelsThatHaveDivergedAreNotSaved) {
  const std::string before = file_bytes(path_);
  model_.optimizer().parameters()[2].value.data_as<float>()[4] = std::nanf("");
  EXPECT_EQ(refusal<InvalidArgument>([&] { model_.save(path_); }),
            "save_checkpoint: value of narrow.weight: element 4 is nan; must be finite");
  EXPECT_EQ(file_bytes(path_), before);
}

}  // namespace
}  // namespace polyhead::nn
