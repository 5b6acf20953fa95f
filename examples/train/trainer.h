// Model, optimiser and where the run stands: what a checkpoint holds.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include <polyhead/nn.h>
#include "model.h"

namespace train {

struct RunConfig {
  ModelConfig model = {};
  int64_t batch = 32;
  double learning_rate = 3e-3;
  uint64_t seed = 1;
};

// A file that load cannot go on from.
class BadCheckpoint : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class Trainer {
 public:
  explicit Trainer(const RunConfig& config);

  double step();  // the loss before it
  Batch next_batch();
  double step(const Batch& batch);

  void save(const std::string& path) const;  // as polyhead::nn::save_checkpoint
  // Throws BadCheckpoint, also for a run of another config; there is nothing to go on with then.
  void load(const std::string& path);

  int64_t steps() const { return state_.step; }
  const Model& model() const { return model_; }
  const polyhead::nn::AdamW& optimizer() const { return optimizer_; }

 private:
  RunConfig config_;
  Model model_;
  polyhead::nn::AdamW optimizer_;
  polyhead::nn::TrainingState state_;
};

}  // namespace train
