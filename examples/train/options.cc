#include "options.h"

#include <charconv>
#include <filesystem>
#include <functional>
#include <span>
#include <sstream>
#include <string_view>
#include <vector>

namespace train {
namespace {

namespace fs = std::filesystem;

template <class Number>
Number parsed(std::string_view flag, std::string_view text, Number least, Number most) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() ||
      !(value >= least && value <= most)) {
    std::ostringstream problem;
    problem << flag << ": got \"" << text << "\"; must be a number from " << least << " to "
            << most;
    throw UsageError(problem.str());
  }
  return value;
}

struct Flag {
  std::string_view name;
  std::function<void(std::string_view)> set;
};

Flag whole(std::string_view name, int64_t* to, int64_t least, int64_t most) {
  return {name, [=](std::string_view text) { *to = parsed<int64_t>(name, text, least, most); }};
}

Flag real(std::string_view name, double* to, double most) {
  return {name, [=](std::string_view text) { *to = parsed<double>(name, text, 0, most); }};
}

Flag words(std::string_view name, std::string* to) {
  return {name, [=](std::string_view text) {
            if (text.empty()) throw UsageError(std::string(name) + ": got nothing; must be a file");
            *to = text;
          }};
}

std::vector<Flag> flags_into(Options* options) {
  RunConfig* run = &options->run;
  return {
      whole("--steps", &options->steps, 0, 1'000'000'000),
      words("--checkpoint", &options->checkpoint),
      words("--page", &options->page),
      whole("--save-every", &options->save_every, 1, 1'000'000'000),
      whole("--threads", &options->threads, 1, 1024),
      real("--require-induction", &options->require_induction, 1),
      whole("--vocabulary", &run->model.task.vocabulary, 8, 1'000'000),
      whole("--length", &run->model.task.length, 8, 4096),
      whole("--width", &run->model.width, 1, 4096),
      whole("--heads", &run->model.num_heads, 1, 4096),
      whole("--batch", &run->batch, 1, 65'536),
      real("--learning-rate", &run->learning_rate, 1),
      {"--seed",
       [=](std::string_view text) { run->seed = parsed<uint64_t>("--seed", text, 0, ~0u); }},
  };
}

const char* text_of(fs::file_type type) {
  if (type == fs::file_type::directory) return "a folder";
  return type == fs::file_type::fifo ? "a FIFO" : "a device";
}

void check_file(const char* flag, const std::string& path) {
  const fs::file_status status = fs::status(path);
  if (!fs::exists(status) || fs::is_regular_file(status)) return;
  throw UsageError(std::string(flag) + ": " + path + " is " + text_of(status.type()) +
                   "; must be a file");
}

// What would stop the page from being written shows itself before the work.
void check_files(const Options& options) {
  check_file("--checkpoint", options.checkpoint);
  check_file("--page", options.page);
  const auto in_full = [](const std::string& path) {
    return fs::weakly_canonical(fs::absolute(path));
  };
  const fs::path page = in_full(options.page);
  if (page == in_full(options.checkpoint)) {
    throw UsageError("--page: got " + options.page + ", the file of --checkpoint; must be another");
  }
  if (!fs::is_directory(page.parent_path())) {
    throw UsageError("--page: " + options.page + ": there is no folder " +
                     page.parent_path().string());
  }
}

void check_together(const ModelConfig& model) {
  if (model.width % model.num_heads != 0) {
    throw UsageError("--heads: got " + std::to_string(model.num_heads) + "; must divide --width, " +
                     std::to_string(model.width));
  }
  // As many different tokens stand before the second copy where that is shortest.
  const int64_t needed = model.task.length - model.task.length / 4;
  if (model.task.vocabulary < needed) {
    throw UsageError("--vocabulary: got " + std::to_string(model.task.vocabulary) +
                     "; must be at least three quarters of --length, " + std::to_string(needed));
  }
}

}  // namespace

Options parse_options(int count, const char* const* arguments) {
  Options options;
  const std::vector<Flag> flags = flags_into(&options);
  const std::span given(arguments, static_cast<size_t>(count));
  for (size_t i = 1; i < given.size(); ++i) {
    const std::string_view name = given[i];
    if (name == "--help" || name == "-h") {
      options.help = true;
      return options;
    }
    if (name == "--resume") {
      options.resume = true;
      continue;
    }
    size_t which = 0;
    while (which < flags.size() && flags[which].name != name) ++which;
    if (which == flags.size()) throw UsageError(std::string(name) + ": no such flag; see --help");
    if (++i == given.size()) throw UsageError(std::string(name) + ": nothing follows it");
    flags[which].set(given[i]);
  }
  check_together(options.run.model);
  check_files(options);
  return options;
}

const char* usage() {
  return R"(usage: train [FLAGS]
A transformer of two layers, attention alone, learns to continue rows in which a piece comes twice.
  --steps N             train until N steps are done (600)
  --checkpoint FILE     where the run is saved (train.safetensors)
  --resume              go on from the checkpoint, with the same bits
  --save-every N        save after each N steps (100), at the end, and on Ctrl-C
  --page FILE           the page of all heads, written at the end (heads.html)
  --require-induction X exit code 1 unless a head of the last layer scores more than X
  --threads N           at most N threads (POLYHEAD_NUM_THREADS, else as many as CPUs)
The run; with --resume they must be given as they were:
  --vocabulary N (64)  --length N (48)  --width N (128)  --heads N (4)
  --batch N (32)  --learning-rate X (0.003)  --seed N (1)
Exit codes: 0 done, 1 diverged or no induction head, 2 bad usage, 3 bad checkpoint, 4 memory, disk,
or interrupted by Ctrl-C, the run saved.
)";
}

}  // namespace train
