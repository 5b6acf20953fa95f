// train_curve FOLDER STEPS: trains the model of examples/train as the example does, and writes what
// test_training.py needs to do the same: the parameters at the start, each step's data, loss, time.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <string>
#include <vector>

#include <polyhead/nn.h>
#include "trainer.h"

namespace {

using polyhead::DType;
using polyhead::Tensor;

// [batch, length] into row `step` of [steps, batch, length].
void keep(const Tensor& from, int64_t step, Tensor* to) {
  std::copy_n(from.data_as<int64_t>(), from.numel(), to->data_as<int64_t>() + step * from.numel());
}

void run(const std::filesystem::path& folder, int64_t steps) {
  const train::RunConfig config;
  train::Trainer trainer(config);
  trainer.save(folder / "start.safetensors");
  const int64_t length = config.model.task.length;
  Tensor tokens(DType::kInt64, {steps, config.batch, length});
  Tensor targets(DType::kInt64, {steps, config.batch, length});
  Tensor losses(DType::kFloat64, {steps}), seconds(DType::kFloat64, {steps});
  for (int64_t step = 0; step < steps; ++step) {
    const train::Batch batch = trainer.next_batch();
    keep(batch.tokens, step, &tokens);
    keep(batch.targets, step, &targets);
    const auto begin = std::chrono::steady_clock::now();
    losses.data_as<double>()[step] = trainer.step(batch);
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - begin;
    seconds.data_as<double>()[step] = passed.count();
  }
  polyhead::save_npy(folder / "tokens.npy", tokens);
  polyhead::save_npy(folder / "targets.npy", targets);
  polyhead::save_npy(folder / "losses.npy", losses);
  polyhead::save_npy(folder / "seconds.npy", seconds);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  try {
    run(argv[1], std::atoi(argv[2]));
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "train_curve: %s\n", problem.what());
    return 1;
  }
  return 0;
}
