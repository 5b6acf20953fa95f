// What must hold of a call that uses the options together, forward and backward, bit for bit: who
// else is in it, in which order, and how it is cut, changes nothing.
#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include "testing/attention_check.h"
#include "testing/backward_part.h"
#include "testing/compare.h"
#include "testing/elements.h"
#include "testing/machine.h"

namespace polyhead::oracle {
namespace {

using Kind = Mask::Kind;
constexpr int64_t kOffset = 20;

class Together : public ::testing::TestWithParam<DType> {
 protected:
  AttentionCase usual() const {
    return {.batch = 3,
            .heads = 4,
            .kv_heads = 2,
            .q_len = 101,
            .kv_len = 541,
            .head_dim = 20,
            .v_head_dim = 24,
            .dtype = GetParam(),
            .regime = Regime::kPeaked,
            .masks = {{.kind = Kind::kAlibi, .dims = "bh", .align = kOffset},
                      {.kind = Kind::kWindow, .align = kOffset, .left = 70, .right = 450},
                      {.kind = Kind::kSegments, .dims = "bs"},
                      {.kind = Kind::kKeyLengths},
                      {.kind = Kind::kAdditive, .dims = "hls", .density = 0.1},
                      {.dims = "b1ls"}},
            .softcap = 3,
            .sinks = true};
  }
};
INSTANTIATE_TEST_SUITE_P(DTypes, Together, ::testing::Values(DType::kFloat32, DType::kFloat64));

// The rows [first, first + count) of `dim` in the whole, and the part that has nothing else.
void expect_part(const TensorView& part, const TensorView& whole, int dim, int64_t first,
                 const std::string& what) {
  expect_same_bits(part, whole.narrow(dim, first, part.size(dim)), what);
}

BackwardPart batch_item(const BackwardProblem& problem, int64_t b) {
  BackwardPart part(problem);
  part.narrow_queries(0, b, 1);
  part.narrow_keys(0, b, 1);
  return part;
}

TEST_P(Together, AloneOrInABatch) {
  for_each_isa([&](const std::string& isa) {
    const BackwardProblem problem(usual());
    const BackwardRun all = run_backward_case(problem);
    for (int64_t b = 0; b < 3; ++b) {
      BackwardPart part = batch_item(problem, b);
      const std::string what = isa + ", batch item " + std::to_string(b);
      expect_same_part(part.run_forward(), problem.forward, 0, b, what);
      const BackwardRun alone = part.run();
      expect_part(alone.d_query.view(), all.d_query.view(), 0, b, what);
      expect_part(alone.d_key.view(), all.d_key.view(), 0, b, what);
      expect_part(alone.d_value.view(), all.d_value.view(), 0, b, what);
    }
  });
}

// Keys past a length, and those that are not there at all.
TEST_P(Together, KeyLengthsAsFewerKeys) {
  for_each_isa([&](const std::string& isa) {
    const BackwardProblem problem(usual());
    const BackwardRun all = run_backward_case(problem);
    for (int64_t b = 0; b < 3; ++b) {
      BackwardPart part = batch_item(problem, b);
      const int64_t keys = integer_at(part.masks[3].tensor(), 0);
      part.narrow_keys(2, 0, keys);
      part.masks = narrowed(part.masks, 3, 0, keys);
      part.masks.erase(part.masks.begin() + 3);
      const std::string what = isa + ", batch item " + std::to_string(b);
      expect_same_part(part.run_forward(), problem.forward, 0, b, what);
      const BackwardRun fewer = part.run();
      expect_part(fewer.d_query.view(), all.d_query.view(), 0, b, what);
      expect_part(fewer.d_key.view(), all.d_key.view().narrow(0, b, 1), 2, 0, what);
      expect_part(fewer.d_value.view(), all.d_value.view().narrow(0, b, 1), 2, 0, what);
    }
  });
}

// Query `row` of the whole is query 0 of the chunk.
std::vector<Mask> seen_from(std::vector<Mask> masks, int64_t row) {
  masks[0] = Mask::alibi(masks[0].tensor(), kOffset + row);
  masks[1] = Mask::window(masks[1].left(), masks[1].right(), kOffset + row);
  return masks;
}

TEST_P(Together, QueriesInOneCallOrInChunks) {
  for_each_isa([&](const std::string& isa) {
    const BackwardProblem problem(usual());
    const BackwardRun all = run_backward_case(problem);
    for (int64_t chunk : {1, 5, 48, 64}) {
      for (int64_t row = 0; row < 101; row += 2 * chunk) {
        BackwardPart part(problem);
        part.narrow_queries(2, row, std::min(chunk, 101 - row));
        part.masks = seen_from(part.masks, row);
        const std::string what = isa + ", rows from " + std::to_string(row);
        expect_same_part(part.run_forward(), problem.forward, 2, row, what);
        expect_part(part.run().d_query.view(), all.d_query.view(), 2, row, what);
      }
    }
  });
}

// The last first: a permutation that strides can say.
template <class View>
View reversed(const View& view, int dim) {
  if (!view.defined() || view.size(dim) < 2) return view;
  std::vector<int64_t> strides(view.strides().begin(), view.strides().end());
  const int64_t step = strides[static_cast<size_t>(dim)];
  strides[static_cast<size_t>(dim)] = -step;
  auto* data = static_cast<const std::byte*>(view.data());
  data += (view.size(dim) - 1) * step * static_cast<int64_t>(dtype_bytes(view.dtype()));
  return View(const_cast<std::byte*>(data), view.dtype(), view.shape(), strides);
}

// Of batch items or of heads.
std::vector<Mask> reversed(const std::vector<Mask>& masks, int dim) {
  std::vector<Mask> result = masks;
  result[0] = Mask::alibi(reversed(masks[0].tensor(), dim), masks[0].offset());
  if (dim == 0) {
    result[2] = Mask::segments(reversed(masks[2].tensor(), 0), reversed(masks[2].key_ids(), 0));
    result[3] = Mask::key_lengths(reversed(masks[3].tensor(), 0));
    result[5] = Mask::boolean(reversed(masks[5].tensor(), 0), masks[5].sense());
  } else {
    result[4] = Mask::additive(reversed(masks[4].tensor(), 0), masks[4].factor());
  }
  return result;
}

TEST_P(Together, PermutingHeadsOrBatchPermutesTheResults) {
  for_each_isa([&](const std::string& isa) {
    const BackwardProblem problem(usual());
    const BackwardRun plain = run_backward_case(problem);
    for (int dim : {0, 1}) {
      BackwardPart part(problem);
      for (ConstTensorView* view :
           {&part.call.query, &part.call.key, &part.call.value, &part.inputs.out, &part.inputs.lse,
            &part.inputs.lse_rest, &part.inputs.d_out}) {
        *view = reversed(*view, dim);
      }
      if (dim == 1) part.call.sinks = reversed(part.call.sinks, 0);
      part.masks = reversed(part.masks, dim);
      const std::string what = isa + ", dimension " + std::to_string(dim);
      expect_same_bits(part.run_forward().out.view(), reversed(problem.forward.out.view(), dim),
                       what);
      const BackwardRun run = part.run();
      expect_same_bits(run.d_query.view(), reversed(plain.d_query.view(), dim), what);
      if (dim == 0) {  // which the sums over the heads of a group do not feel
        expect_same_bits(run.d_key.view(), reversed(plain.d_key.view(), 0), what);
        expect_same_bits(run.d_value.view(), reversed(plain.d_value.view(), 0), what);
      } else {  // nor those over the batch this
        expect_same_bits(run.d_sinks.view(), reversed(plain.d_sinks.view(), 0), what);
        expect_same_bits(run.d_masks[4].view(), reversed(plain.d_masks[4].view(), 0), what);
      }
    }
  });
}

// Whether no row of batch item b sees key j.
bool is_hidden(const AttentionCall& call, int64_t b, int64_t j) {
  for (int64_t n = 0; n < call.num_heads() * call.q_len(); ++n) {
    const double bias = attention_bias_reference(call, b, n / call.q_len(), n % call.q_len(), j);
    if (bias != -std::numeric_limits<double>::infinity()) return false;
  }
  return true;
}

TEST_P(Together, WhatNoRowSeesMayBeNan) {
  AttentionCase spec = usual();
  spec.masks[2].pattern = MaskPattern::kPadding;  // ids in runs: most keys have no query's
  const BackwardProblem clean(spec), poisoned(spec);
  int64_t count = 0;
  for_each_index(poisoned.problem.key.view().shape(), [&](const Index& at) {
    if (at[1] > 0 || at[3] > 0 || !is_hidden(clean.problem.call(), at[0], at[2])) return;
    ++count;
    for (const GuardedTensor* rows : {&poisoned.problem.key, &poisoned.problem.value}) {
      fill(rows->view().narrow(0, at[0], 1).narrow(2, at[2], 1),
           std::numeric_limits<double>::quiet_NaN());
    }
  });
  EXPECT_GT(count, spec.kv_len);
  EXPECT_LT(count, 3 * spec.kv_len);
  for_each_backward(clean, [&](const std::string& plan, const std::string& what) {
    expect_same_run(run_attention_case(poisoned.problem.call()),
                    run_attention_case(clean.problem.call()), what);
    expect_same_gradients(run_backward_case(poisoned, plan), run_backward_case(clean, plan), what);
  });
}

// ALiBi and segments as tensors say them.
TEST_P(Together, AsTensorMasksSayThem) {
  AttentionCase spec = usual();
  spec.masks = {spec.masks[0],
                spec.masks[2],
                {.kind = Kind::kAdditive, .dims = "bhls", .dtype = GetParam()},
                {.dims = "b1ls"}};
  BackwardProblem problem(spec);
  const std::vector<Mask> masks = problem.problem.masks;
  const std::vector<Mask> said = {masks[0], masks[1]}, by_tensors = {masks[2], masks[3]};
  const TensorView added = problem.problem.mask_tensors[3].view();
  fill_with(added, [&](const Index& at) {
    const double slope = read(masks[0].tensor(), {at[0], at[1]});
    return -slope * std::abs(static_cast<double>(at[2] + kOffset - at[3]));
  });
  const TensorView hidden = problem.problem.mask_tensors[4].view();
  for_each_index(hidden.shape(), [&](const Index& at) {
    hidden.data_as<bool>()[offset_of(hidden, at)] =
        integer_at(ids_of(masks[1].tensor(), at[0]), at[2]) !=
        integer_at(ids_of(masks[1].key_ids(), at[0]), at[3]);
  });
  for_each_isa([&](const std::string& isa) {
    AttentionCall call = problem.problem.call();
    call.masks = by_tensors;
    problem.forward = run_attention_case(call);
    const BackwardRun want = run_backward(call, problem.inputs(), {.masks = false});
    call.masks = said;
    expect_same_run(run_attention_case(call), problem.forward, isa);
    expect_same_gradients(run_backward(call, problem.inputs(), {.masks = false}), want, isa);
  });
}

}  // namespace
}  // namespace polyhead::oracle
