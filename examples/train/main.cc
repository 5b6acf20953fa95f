// Trains a small transformer until it has an induction head, and shows its heads.
//
//   ./dev train                        seconds on two cores; then open build/heads.html
//   ./dev train --resume --steps 900   goes on from its checkpoint
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <new>
#include <string>

#include <polyhead/nn.h>
#include "heads.h"
#include "options.h"
#include "progress.h"
#include "stop.h"
#include "trainer.h"

namespace train {
namespace {

enum ExitCode { kDone = 0, kNotLearned = 1, kBadUsage = 2, kBadFile = 3, kNoResource = 4 };

constexpr int64_t kRowsToJudge = 64;

int failed(ExitCode code, const std::string& what) {
  std::fflush(stdout);  // what came before stands before it
  std::fprintf(stderr, "train: %s\n", what.c_str());
  return code;
}

void begin_or_resume(const Options& options, Trainer* trainer) {
  if (options.resume) {
    trainer->load(options.checkpoint);
    std::printf("%s: going on after step %lld\n", options.checkpoint.c_str(),
                static_cast<long long>(trainer->steps()));
    return;
  }
  if (std::filesystem::exists(options.checkpoint)) {
    throw UsageError("--checkpoint: " + options.checkpoint +
                     " is there already; --resume goes on from it, another name begins anew");
  }
}

void introduce(const ModelConfig& model) {
  std::printf(
      "%lld layers of %lld heads learn to continue rows in which a piece comes twice. "
      "Guessing has loss %.2f. Ctrl-C saves and ends.\n",
      static_cast<long long>(model.num_layers), static_cast<long long>(model.num_heads),
      std::log(static_cast<double>(model.task.vocabulary)));
}

// False if a signal came first. Saves as it goes, and at its end, where that is not yet done.
bool train_until(const Options& options, Trainer* trainer) {
  // A folder that cannot be written shows itself now, not after the work.
  if (trainer->steps() == 0) trainer->save(options.checkpoint);
  const RunConfig& run = options.run;
  if (trainer->steps() < options.steps) introduce(run.model);
  Progress progress({.first = trainer->steps(),
                     .last = options.steps,
                     .tokens_per_step = run.batch * run.model.task.length});
  while (trainer->steps() < options.steps) {
    const double loss = trainer->step();
    progress.show(trainer->steps(), loss);
    const bool stop = stop_wanted(), last = trainer->steps() == options.steps;
    if (stop || last || trainer->steps() % options.save_every == 0) {
      trainer->save(options.checkpoint);
    }
    if (stop) return false;
  }
  return true;
}

// The largest score of the last layer.
double print_scores(const std::vector<std::vector<double>>& scores) {
  std::printf("induction score of each head (1: it always looks where the answer is)\n");
  for (size_t layer = 0; layer < scores.size(); ++layer) {
    std::printf("  layer %zu ", layer + 1);
    for (const double score : scores[layer]) std::printf("  %.3f", score);
    std::printf("\n");
  }
  return std::ranges::max(scores.back());
}

int show_heads(const Options& options, const Trainer& trainer) {
  polyhead::nn::Random unseen{.seed = ~options.run.seed};
  Heads heads{.batch = draw_batch(options.run.model.task, kRowsToJudge, &unseen), .weights = {}};
  heads.weights = trainer.model().head_weights(heads.batch.tokens);
  const double best = print_scores(induction_scores(heads));
  write_page(options.page, heads,
             "Trained for " + std::to_string(trainer.steps()) +
                 " steps by examples/train, Polyhead " + polyhead::version() + ", float32.");
  std::printf("%s: every head's weights; open it in a browser\n", options.page.c_str());
  if (best > options.require_induction || options.require_induction == 0) return kDone;
  return failed(kNotLearned, "the last layer's best score is " + std::to_string(best) +
                                 "; required are more than " +
                                 std::to_string(options.require_induction));
}

// POLYHEAD_ISA and POLYHEAD_NUM_THREADS.
void check_environment() {
  try {
    polyhead::isa();
    polyhead::num_threads();
  } catch (const polyhead::InvalidArgument& error) {
    throw UsageError(error.what());
  }
}

int run(const Options& options) {
  if (options.help) {
    std::printf("%s", usage());
    return kDone;
  }
  check_environment();
  note_stops();
  if (options.threads > 0) polyhead::set_num_threads(static_cast<int>(options.threads));
  Trainer trainer(options.run);
  begin_or_resume(options, &trainer);
  if (train_until(options, &trainer)) return show_heads(options, trainer);
  return failed(kNoResource, "interrupted after step " + std::to_string(trainer.steps()) +
                                 "; --resume goes on from " + options.checkpoint);
}

}  // namespace
}  // namespace train

int main(int argc, char** argv) {
  using namespace train;
  try {
    const int code = run(parse_options(argc, argv));
    std::fflush(stdout);
    if (code == kDone && std::ferror(stdout)) {
      return failed(kNoResource, "stdout: cannot be written");
    }
    return code;
  } catch (const UsageError& error) {
    return failed(kBadUsage, error.what());
  } catch (const BadCheckpoint& error) {
    return failed(kBadFile, error.what());
  } catch (const polyhead::IoError& error) {
    return failed(kNoResource, error.what());
  } catch (const polyhead::InvalidArgument& error) {  // NaN or infinity in a gradient or a value
    return failed(kNotLearned, error.what());
  } catch (const std::bad_alloc&) {
    return failed(kNoResource, "not enough memory");
  } catch (const std::exception& error) {
    return failed(kNoResource, error.what());
  }
}
