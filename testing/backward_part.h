// The same part of all that belongs to queries or to keys of a problem.
//
//   BackwardPart part(problem);
//   part.narrow_queries(0, 1, 1);  // batch item 1
//   part.narrow_keys(0, 1, 1);
//   BackwardRun run = part.run();
#pragma once

#include <cstdint>
#include <vector>

#include "testing/backward_check.h"

namespace polyhead::oracle {

struct BackwardPart {
  AttentionCall call;
  AttentionBackwardInputs inputs;
  std::vector<Mask> masks;

  explicit BackwardPart(const BackwardProblem& problem)
      : call(problem.problem.call()), inputs(problem.inputs()), masks(problem.problem.masks) {}

  void narrow_queries(int dim, int64_t start, int64_t length) {
    call.query = call.query.narrow(dim, start, length);
    inputs.out = inputs.out.narrow(dim, start, length);
    inputs.lse = inputs.lse.narrow(dim, start, length);
    inputs.lse_rest = inputs.lse_rest.narrow(dim, start, length);
    inputs.d_out = inputs.d_out.narrow(dim, start, length);
    masks = narrowed(masks, dim, start, length);
  }
  void narrow_keys(int dim, int64_t start, int64_t length) {
    call.key = call.key.narrow(dim, start, length);
    call.value = call.value.narrow(dim, start, length);
  }
  AttentionRun run_forward() {
    call.masks = masks;
    return run_attention_case(call);
  }
  BackwardRun run() {
    call.masks = masks;
    return run_backward(call, inputs);
  }
};

}  // namespace polyhead::oracle
