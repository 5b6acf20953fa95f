// Checkpoints: one safetensors file from which training goes on with the same bits.
//
//   nn::save_checkpoint("run.safetensors", optimizer, {.step = step, .random = random});
//   nn::TrainingState state = nn::load_checkpoint("run.safetensors", optimizer);
//
// The file holds each parameter under its name, and under adamw.mean.NAME and adamw.square.NAME the
// optimiser's moments; numbers are in its metadata. It appears whole or not at all: where saving
// fails (a full disk, a process killed), the file that was there is intact.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include <polyhead/nn/optimizer.h>
#include <polyhead/nn/random.h>

#pragma GCC visibility push(default)
namespace polyhead::nn {

struct TrainingState {
  int64_t step = 0;
  Random random = {};
  std::map<std::string, std::string> notes = {};  // the program's own
};

// Throws IoError if the file cannot be written, InvalidArgument for a parameter with NaN or
// infinity in it, or a negative step.
void save_checkpoint(const std::string& path, const AdamW& optimizer, const TrainingState& state);

// Into the parameters, the optimiser and its options. Throws IoError, with nothing changed, for a
// file that is damaged, no checkpoint, or one of another model: names, shapes and dtypes must be
// those of the parameters, and all numbers such as training comes to: finite, no negative square.
TrainingState load_checkpoint(const std::string& path, AdamW& optimizer);

}  // namespace polyhead::nn
#pragma GCC visibility pop
