// `polyhead explain`: one batch item's computation, step by step, on stdout and as a page.
#include <cstdio>
#include <iostream>
#include <optional>

#include "arguments.h"
#include "errors.h"
#include "explain_page.h"
#include "explain_part.h"
#include "explain_text.h"
#include "job.h"
#include "result_files.h"
#include "terminal.h"
#include "trace.h"

namespace polyhead::cli {
namespace {

void print_title(const Job& job, const Trace& trace, const Terminal& terminal) {
  const int64_t batch = job.batch_first(job.query()).size(0);
  std::cout << terminal.bold(job.module_name()) << ": " << job.understood() << ", "
            << dtype_name(job.query().dtype()) << "\n"
            << "The numbers of steps 1 to 9 are computed in double";
  if (batch > 1) std::cout << ", for batch item 1 of " << batch;
  if (trace.rows < trace.q_len) {
    std::cout << ",\nfor queries " << trace.first_row << " to " << trace.first_row + trace.rows - 1
              << " of " << trace.q_len;
  }
  std::cout << ".\n";
}

// The result that `run` gives, beside the one shown.
void print_fast_path(const Job& job, const Job::Result& result, const Trace& trace,
                     const Terminal& terminal) {
  const Matrix fast = fast_out(job, result, trace);
  char difference[40];
  std::snprintf(difference, sizeof difference, "%.2g",
                largest_difference(fast, traced_out(job, trace)));
  std::cout << "\n"
            << terminal.bold("The fast path") << " (" << isa() << ", "
            << dtype_name(result.out.dtype()) << ") gives\n   out " << shape_text(fast) << "\n"
            << matrix_text(fast, terminal, 5, Picture::kNo)
            << "   largest difference from step 9: " << difference
            << "; `polyhead verify` holds it against\n   what rounding may do\n";
}

}  // namespace

int run_explain(const ExplainArguments& arguments) {
  const ResultFiles files(arguments, "");
  const Job job(arguments);
  check_explain_page_size(job);
  const Job::Result result = job.forward(wanted_weights(arguments));
  std::optional<Trace> trace;
  if (result.out.numel() != 0) trace = trace_first_item(job);
  const Trace* shown = trace ? &*trace : nullptr;
  files.write(job, result, [&](const std::string& path) {
    write_explain_page(path, explain_page(job, result, shown));
  });
  if (!trace) {
    std::cout << job.understood() << ": there is nothing to compute\n";
    return kOk;
  }
  const Terminal terminal = stdout_terminal();
  print_title(job, *trace, terminal);
  print_trace(job, *trace, terminal, std::cout);
  print_fast_path(job, result, *trace, terminal);
  return kOk;
}

}  // namespace polyhead::cli
