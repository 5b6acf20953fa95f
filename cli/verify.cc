// `polyhead verify`: the fast path against the double reference, element by element.
#include <cmath>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "arguments.h"
#include "comparison.h"
#include "errors.h"
#include "job.h"
#include "module/module_reference.h"
#include "result_files.h"
#include "terminal.h"

namespace polyhead::cli {
namespace {

ModuleReference reference_of(const Job& job, WeightsMode need_weights) {
  if (const MultiheadAttention* mha = job.mha()) {
    return module_forward_reference(*mha, job.query(), job.key(), job.value(),
                                    job.options(need_weights));
  }
  const ConstTensorView q = job.batch_first(job.query()), k = job.batch_first(job.key()),
                        v = job.batch_first(job.value());
  const ConstTensorView mask =
      job.scratch_mask().defined() ? job.scratch_mask().view() : ConstTensorView();
  return module_forward_reference(*job.scratch(), q, k, v, mask, need_weights);
}

// The from-scratch reference is batch first and batched, whatever the job is.
ConstTensorView as_reference(const Job& job, const ConstTensorView& out) {
  return job.scratch() ? job.batch_first(out) : out;
}
ConstTensorView weights_as_reference(const Job& job, const ConstTensorView& weights) {
  return job.scratch() && !job.batched() ? weights.unsqueezed(0) : weights;
}

struct Verdict {
  std::string isa;
  Comparison out;
  std::optional<Comparison> weights;  // unless --need-weights none

  bool within_budget() const {
    return out.within_budget() && (!weights || weights->within_budget());
  }
};

std::string number_text(double x) {
  char text[40];
  std::snprintf(text, sizeof text, "%.3g", x);
  return text;
}

void print_line(const char* name, const Comparison& c, const Terminal& terminal) {
  std::cout << "  " << terminal.bold(name) << (c.within_budget() ? "ok" : "WRONG")
            << "  worst error " << number_text(c.worst_error) << ", "
            << number_text(100 * c.worst_share) << " % of the budget";
  if (c.count == 0) std::cout << " (no elements)";
  std::cout << "\n";
  if (c.where.empty()) return;
  char text[120];
  std::snprintf(text, sizeof text, "got %.9g, reference %.12g, budget %.3g", c.got, c.want,
                c.budget);
  std::cout << "           at " << where_text(c.where) << ": " << text << "\n";
}

void print_verdict(const Job& job, const Verdict& verdict) {
  const Terminal terminal = stdout_terminal();
  std::cout << job.module_name() << ": " << job.understood() << ", "
            << dtype_name(job.query().dtype()) << ", " << verdict.isa << "\n";
  print_line("out      ", verdict.out, terminal);
  if (verdict.weights) print_line("weights  ", *verdict.weights, terminal);
  std::cout << (verdict.within_budget() ? "within the error budget\n"
                                        : "BEYOND the error budget\n");
}

// NaN and infinities have no JSON number; they become null, as the library does.
nlohmann::ordered_json json_of(const Comparison& c) {
  return {{"elements", c.count},
          {"worst_error", c.worst_error},
          {"share_of_budget", c.worst_share},
          {"where", c.where},
          {"got", c.got},
          {"want", c.want},
          {"budget", c.budget},
          {"within_budget", c.within_budget()}};
}

void print_json(const Job& job, const Verdict& verdict) {
  nlohmann::ordered_json json = {{"module", job.module_name()},
                                 {"understood", job.understood()},
                                 {"dtype", dtype_name(job.query().dtype())},
                                 {"isa", verdict.isa},
                                 {"out", json_of(verdict.out)}};
  if (verdict.weights) json["weights"] = json_of(*verdict.weights);
  json["within_budget"] = verdict.within_budget();
  std::cout << json.dump(2) << "\n";
}

}  // namespace

int run_verify(const VerifyArguments& arguments) {
  const ResultFiles files(arguments, "");
  const Job job(arguments);
  // Weights are compared unless they were declined; per head, where an error has least to hide in.
  const WeightsMode mode = arguments.need_weights.value_or(
      arguments.weights_out.empty() ? WeightsMode::kPerHead : WeightsMode::kAverage);
  const Job::Result result = job.forward(mode);
  const bool progress = stderr_is_terminal();
  if (progress) std::cerr << "polyhead verify: computing the double reference ...\r" << std::flush;
  const ModuleReference reference = reference_of(job, mode);
  if (progress) std::cerr << "\033[K" << std::flush;
  Verdict verdict;
  verdict.isa = isa();
  verdict.out = compare(as_reference(job, result.out), reference.out, reference.out_budget);
  if (mode != WeightsMode::kNone) {
    verdict.weights = compare(weights_as_reference(job, result.weights), reference.weights,
                              reference.weights_budget);
  }
  files.write(job, result);
  arguments.json ? print_json(job, verdict) : print_verdict(job, verdict);
  return verdict.within_budget() ? kOk : kBeyondBudget;
}

}  // namespace polyhead::cli
