// The example's promises: the same bits for any number of threads and after resuming, and learning.
#include "trainer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "io/test_files.h"
#include "testing/compare.h"

namespace train {
namespace {

namespace nn = polyhead::nn;
using polyhead::Tensor;

RunConfig tiny() {
  return {.model = {.task = {.vocabulary = 12, .length = 12}, .width = 16, .num_heads = 2},
          .batch = 6};
}

void expect_same(const Trainer& a, const Trainer& b) {
  const nn::ParameterList &left = a.optimizer().parameters(), &right = b.optimizer().parameters();
  ASSERT_EQ(left.size(), right.size());
  for (size_t i = 0; i < left.size(); ++i) {
    polyhead::oracle::expect_same_bits(left[i].value, right[i].value, left[i].name);
  }
  EXPECT_EQ(a.steps(), b.steps());
}

std::vector<double> train_for(Trainer* trainer, int steps) {
  std::vector<double> losses;
  for (int i = 0; i < steps; ++i) losses.push_back(trainer->step());
  return losses;
}

class Threads {
 public:
  explicit Threads(int count) : before_(polyhead::num_threads()) {
    polyhead::set_num_threads(count);
  }
  ~Threads() { polyhead::set_num_threads(before_); }
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int before_;
};

TEST(Trainer, HasTheSameBitsForAnyNumberOfThreads) {
  Trainer alone(tiny());
  std::vector<double> losses;
  {
    const Threads threads(1);
    losses = train_for(&alone, 12);
  }
  for (const int count : {2, 3, 7}) {
    const Threads threads(count);
    Trainer other(tiny());
    EXPECT_EQ(train_for(&other, 12), losses) << count;
    expect_same(other, alone);
  }
}

TEST(Trainer, GoesOnWithTheSameBits) {
  const polyhead::TestFolder folder;
  const std::string path = folder.path("run.safetensors");
  Trainer whole(tiny()), first(tiny()), second(tiny());
  const std::vector<double> losses = train_for(&whole, 12);
  train_for(&first, 5);
  first.save(path);
  second.load(path);
  expect_same(second, first);
  EXPECT_EQ(train_for(&second, 7), std::vector<double>(losses.begin() + 5, losses.end()));
  expect_same(second, whole);
}

TEST(Trainer, TakesNoOtherRunsCheckpoint) {
  const polyhead::TestFolder folder;
  const std::string path = folder.path("run.safetensors");
  Trainer(tiny()).save(path);
  const auto expect_refused = [&](const RunConfig& config, const std::string& why) {
    try {
      Trainer(config).load(path);
      ADD_FAILURE() << "loaded; expected: " << why;
    } catch (const BadCheckpoint& error) {
      EXPECT_NE(std::string(error.what()).find(why), std::string::npos) << error.what();
    }
  };
  RunConfig heads = tiny(), wider = tiny(), batch = tiny(), deeper = tiny();
  heads.model.num_heads = 4;
  expect_refused(heads, "the flags say vocabulary 12, length 12, width 16, 4 heads");
  batch.batch = 7;
  expect_refused(batch, "batch 7");
  wider.model.width = 18;
  expect_refused(wider, "the flags say vocabulary 12, length 12, width 18, 2 heads");
  deeper.model.num_layers = 3;
  expect_refused(deeper, "tensors; must be");
  const auto rewrite = [&](const std::string& key, const std::string& text) {
    Trainer(tiny()).save(path);
    const polyhead::SafetensorsFile file(path);
    auto metadata = file.metadata();
    metadata.erase(key);
    if (!text.empty()) metadata[key] = text;
    std::vector<Tensor> tensors;
    polyhead::NamedTensors named;
    for (const auto& entry : file.entries()) tensors.push_back(file.read(entry.name));
    for (size_t i = 0; i < tensors.size(); ++i) {
      named.emplace_back(file.entries()[i].name, std::as_const(tensors[i]).view());
    }
    polyhead::save_safetensors(path, named, metadata);
  };
  rewrite("step", "7");
  expect_refused(tiny(), "step is 7, adamw.steps 0; must be equal");
  rewrite("note.run", "");
  expect_refused(tiny(), "is a run of another program; the flags say");
}

TEST(Trainer, Learns) {
  RunConfig config = tiny();
  config.batch = 32;
  Trainer trainer(config);
  const std::vector<double> losses = train_for(&trainer, 400);
  const auto mean = [&](size_t from) {
    double sum = 0;
    for (size_t i = from; i < from + 20; ++i) sum += losses[i];
    return sum / 20;
  };
  EXPECT_LT(mean(380), mean(0) / 2);
}

TEST(Trainer, HeadsAreCausalAndSumToOne) {
  Trainer trainer(tiny());
  const Batch batch = trainer.next_batch();
  const std::vector<Tensor> layers = trainer.model().head_weights(batch.tokens);
  ASSERT_EQ(layers.size(), 2u);
  for (const Tensor& weights : layers) {
    ASSERT_EQ(weights.shape_string(), "[6, 2, 12, 12]");
    for (int64_t row = 0; row < 6 * 2 * 12; ++row) {
      const float* of_query = weights.data_as<float>() + row * 12;
      float sum = 0;
      for (int64_t key = 0; key < 12; ++key) sum += of_query[key];
      EXPECT_LT(std::abs(sum - 1), 0.001F);
      for (int64_t key = row % 12 + 1; key < 12; ++key) EXPECT_EQ(of_query[key], 0);
    }
  }
}

}  // namespace
}  // namespace train
