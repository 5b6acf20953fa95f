// attention_backward allocates nothing after its first call of a shape: counted.
#include <vector>

#include <gtest/gtest.h>
#include <polyhead/attention.h>
#include "testing/allocations.h"
#include "testing/backward_check.h"
#include "testing/machine.h"

namespace polyhead::oracle {
namespace {

TEST(BackwardAllocation, TheCounterCounts) {
  EXPECT_EQ(allocations_after_the_first([] { Tensor tensor(DType::kFloat32, {2}); }), 5);
}

TEST(BackwardAllocation, AllocatesOnce) {
  for (const int n : {1, 2, 7}) {
    const Threads threads(n);
    AttentionCase spec = {.batch = 2, .heads = 4, .kv_heads = 2, .q_len = 101, .kv_len = 600};
    spec.masks = {{.dims = "b11s"}, {.kind = Mask::Kind::kAdditive, .dims = "1s"}};
    spec.weights = WeightsMode::kPerHead;
    spec.dropout_p = 0.1;
    const BackwardProblem problem(spec);
    const AttentionProblem& of = problem.problem;
    Tensor d_query(of.query.view()), d_key(of.key.view()), d_value(of.value.view());
    Tensor d_mask(DType::kFloat32, {1, 600});
    const AttentionOptions options{
        .masks = of.masks, .weights = WeightsMode::kPerHead, .dropout_p = 0.1};
    const AttentionBackwardInputs inputs = problem.inputs();
    const AttentionGradients all{d_query, d_key, d_value, {{}, d_mask}}, query_alone{d_query};
    for (const AttentionGradients* gradients : {&all, &query_alone}) {
      EXPECT_EQ(allocations_after_the_first([&] {
                  attention_backward(of.query.view(), of.key.view(), of.value.view(), options,
                                     inputs, *gradients);
                }),
                0)
          << n << " threads";
    }
  }
}

}  // namespace
}  // namespace polyhead::oracle
