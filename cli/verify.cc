// `polyhead verify`: the fast path against the double reference, element by element.
#include <iostream>

#include "arguments.h"
#include "job.h"
#include "module/module_reference.h"
#include "result_files.h"
#include "terminal.h"
#include "verdict.h"

namespace polyhead::cli {
namespace {

ModuleReference reference_of(const Job& job, WeightsMode need_weights) {
  if (const MultiheadAttention* mha = job.mha()) {
    return module_forward_reference(*mha, job.query(), job.key(), job.value(),
                                    job.options(need_weights), ReferenceSteps::kResults);
  }
  const ConstTensorView q = job.batch_first(job.query()), k = job.batch_first(job.key()),
                        v = job.batch_first(job.value());
  const ConstTensorView mask =
      job.scratch_mask().defined() ? job.scratch_mask().view() : ConstTensorView();
  return module_forward_reference(*job.scratch(), q, k, v, mask,
                                  {need_weights, ReferenceSteps::kResults});
}

// The from-scratch reference is batch first and batched, whatever the job is.
ConstTensorView out_as_reference(const Job& job, const ConstTensorView& out) {
  return job.scratch() ? job.batch_first(out) : out;
}
ConstTensorView weights_as_reference(const Job& job, const ConstTensorView& weights) {
  return job.scratch() && !job.batched() ? weights.unsqueezed(0) : weights;
}

Verdict judge(const Job& job, const Job::Result& result, WeightsMode mode) {
  const ModuleReference reference = reference_of(job, mode);
  Verdict verdict = {
      .module = job.module_name(),
      .understood = job.understood(),
      .dtype = dtype_name(job.query().dtype()),
      .isa = isa(),
      .out = compare(out_as_reference(job, result.out), reference.out, reference.out_budget),
      .weights = {}};
  if (mode != WeightsMode::kNone) {
    verdict.weights = compare(weights_as_reference(job, result.weights), reference.weights,
                              reference.weights_budget);
  }
  return verdict;
}

}  // namespace

int run_verify(const VerifyArguments& arguments) {
  const ResultFiles files(arguments, "");
  const Job job(arguments);
  files.check_size(job);
  // Weights are compared unless they were declined; per head, where an error has least to hide in.
  const WeightsMode mode = arguments.need_weights.value_or(
      arguments.weights_out.empty() ? WeightsMode::kPerHead : WeightsMode::kAverage);
  const Job::Result result = job.forward(mode);
  Verdict verdict;
  {
    const ProgressLine progress("polyhead verify: computing the double reference ...");
    verdict = judge(job, result, mode);
  }
  files.write(job, result);
  std::cout << (arguments.json ? verdict_json(verdict) : verdict_text(verdict, stdout_terminal()));
  return verdict.exit_code();
}

}  // namespace polyhead::cli
