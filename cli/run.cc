// `polyhead run`: weights and inputs from files, results to files.
#include <iostream>

#include "arguments.h"
#include "base/escape.h"
#include "errors.h"
#include "job.h"
#include "result_files.h"
#include "terminal.h"

namespace polyhead::cli {
namespace {

constexpr const char* kLlamaNote =
    "polyhead run: note: --map llama maps names only; rotary position embeddings are not applied\n";

}  // namespace

int run_run(const RunArguments& arguments) {
  const ResultFiles files(arguments, arguments.out);
  const Job job(arguments);
  files.check_size(job);
  {
    const ProgressLine progress("polyhead run: computing ...");
    files.write(job, job.forward(wanted_weights(arguments)));
  }
  // Only now: an error is one line on stderr, and nothing beside it.
  std::cerr << "polyhead run: " << job.understood() << " (" << job.module_name() << ", "
            << dtype_name(job.query().dtype()) << ")\n";
  if (job.map_is_idle()) {
    std::cerr << "polyhead run: note: --map " << escaped(arguments.map)
              << ": none of its names is in " << escaped(arguments.weights)
              << "; read by torch's names\n";
  } else if (arguments.map == "llama") {
    std::cerr << kLlamaNote;
  }
  return kOk;
}

}  // namespace polyhead::cli
