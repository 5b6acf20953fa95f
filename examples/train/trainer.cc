#include "trainer.h"

#include <algorithm>
#include <sstream>

namespace train {
namespace {

namespace nn = polyhead::nn;

constexpr double kMaxGradientNorm = 1.0;
constexpr const char* kRun = "run";

// Not all of it shows in the parameters' shapes.
std::string text_of(const RunConfig& config) {
  std::ostringstream text;
  text << "vocabulary " << config.model.task.vocabulary << ", length " << config.model.task.length
       << ", width " << config.model.width << ", " << config.model.num_heads << " heads, batch "
       << config.batch << ", learning rate " << config.learning_rate << ", seed " << config.seed;
  return text.str();
}

// Before the shapes are compared: these are the flags' own words.
void check_run(const std::string& path, const std::string& want) {
  const polyhead::SafetensorsFile file(path);
  const auto& metadata = file.metadata();
  if (!metadata.contains("polyhead.checkpoint")) return;  // load_checkpoint says so
  const auto note = metadata.find(std::string("note.") + kRun);
  const std::string got = note == metadata.end() ? "another program" : note->second;
  if (got != want) throw BadCheckpoint(path + ": is a run of " + got + "; the flags say " + want);
}

}  // namespace

Trainer::Trainer(const RunConfig& config)
    : config_(config),
      model_(config.model, config.seed),
      optimizer_(model_.parameters(), {.learning_rate = config.learning_rate}),
      state_{.random = {.seed = config.seed + 1}, .notes = {{kRun, text_of(config)}}} {}

Batch Trainer::next_batch() {
  return draw_batch(config_.model.task, config_.batch, &state_.random);
}

double Trainer::step(const Batch& batch) {
  const double loss = model_.loss_and_gradients(batch);
  nn::clip_gradient_norm(optimizer_.parameters(), kMaxGradientNorm);
  optimizer_.step();
  ++state_.step;
  return loss;
}

double Trainer::step() { return step(next_batch()); }

void Trainer::save(const std::string& path) const { nn::save_checkpoint(path, optimizer_, state_); }

void Trainer::load(const std::string& path) {
  try {
    check_run(path, text_of(config_));
    state_ = nn::load_checkpoint(path, optimizer_);
  } catch (const polyhead::IoError& error) {
    throw BadCheckpoint(error.what());
  }
  if (state_.step == optimizer_.steps()) return;
  throw BadCheckpoint(path + ": step is " + std::to_string(state_.step) + ", adamw.steps " +
                      std::to_string(optimizer_.steps()) + "; must be equal");
}

}  // namespace train
