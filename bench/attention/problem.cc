#include "bench/attention/problem.h"

#include <algorithm>
#include <cmath>

#include "testing/attention_check.h"
#include "testing/compare.h"
#include "testing/elements.h"
#include "testing/random.h"
#include "testing/tolerance.h"

namespace polyhead::bench {
namespace {

// What the reference does in about half a second.
constexpr double kFlopsToCheckAll = 3e8;

// [B, H, L, D], whatever the memory order.
template <class View>
View heads_outer(const Cell& cell, View view) {
  return cell.heads_inner ? view.transposed(1, 2) : view;
}

Tensor operand(const Cell& cell) {
  if (cell.heads_inner) {
    return Tensor(cell.dtype, {cell.batch, cell.len, cell.heads, cell.head_dim});
  }
  return Tensor(cell.dtype, {cell.batch, cell.heads, cell.len, cell.head_dim});
}

Tensor normal_operand(const Cell& cell, oracle::Random& random) {
  Tensor tensor = operand(cell);
  oracle::fill_with(tensor.view(), [&](const oracle::Index&) { return random.normal(); });
  return tensor;
}

// [L, S]
Tensor mask_tensor(const Cell& cell, oracle::Random& random) {
  if (cell.mask == MaskKind::kAdditive) {
    Tensor tensor(cell.dtype, {cell.len, cell.len});
    oracle::fill_with(tensor.view(), [&](const oracle::Index&) { return random.normal(); });
    return tensor;
  }
  Tensor tensor(DType::kBool, {cell.len, cell.len});
  std::generate_n(tensor.data_as<bool>(), tensor.numel(), [&] { return random.uniform() < 0.25; });
  return tensor;
}

Tensor weights_tensor(const Cell& cell) {
  if (cell.weights == WeightsMode::kAverage) {
    return Tensor(cell.dtype, {cell.batch, cell.len, cell.len});
  }
  return Tensor(cell.dtype, {cell.batch, cell.heads, cell.len, cell.len});
}

std::string compare(const ConstTensorView& got, const Tensor& truth, const Tensor& budget) {
  return oracle::compare_within_budget(got, truth, budget, oracle::allowed_use(got.dtype())).report;
}

}  // namespace

double useful_flops(const Cell& cell) {
  const auto len = static_cast<double>(cell.len);
  const double pairs = cell.mask == MaskKind::kCausal ? len * (len + 1) / 2 : len * len;
  return 4.0 * static_cast<double>(cell.batch * cell.heads * cell.head_dim) * pairs;
}

Problem::Problem(const Cell& given) : cell(given) {
  oracle::Random random(1);
  query = normal_operand(cell, random);
  key = normal_operand(cell, random);
  value = normal_operand(cell, random);
  out = operand(cell);
  outputs_.out = heads_outer(cell, out.view());
  if (cell.mask == MaskKind::kCausal) options_.masks = {Mask::causal()};
  if (cell.mask == MaskKind::kBoolean || cell.mask == MaskKind::kAdditive) {
    mask = mask_tensor(cell, random);
    options_.masks = {cell.mask == MaskKind::kBoolean
                          ? Mask::boolean(mask.view(), MaskSense::kExcluded)
                          : Mask::additive(mask.view())};
  }
  options_.weights = cell.weights;
  options_.dropout_p = cell.dropout_p;
  if (cell.weights != WeightsMode::kNone) {
    weights = weights_tensor(cell);
    outputs_.weights = weights.view();
  }
}

void Problem::run() {
  attention_forward(heads_outer(cell, ConstTensorView(query)),
                    heads_outer(cell, ConstTensorView(key)),
                    heads_outer(cell, ConstTensorView(value)), options_, outputs_);
}

std::string Problem::find_error(int64_t rows_per_head) const {
  // Dropout knows a row by its index, and so by the rows before it.
  const bool all =
      useful_flops(cell) <= kFlopsToCheckAll || rows_per_head >= cell.len || cell.dropout_p > 0;
  if (all) return find_error_in_rows(0, cell.len);
  std::string error;
  for (int64_t n = 0; n < rows_per_head && error.empty(); ++n) {
    const int64_t last = std::max<int64_t>(rows_per_head - 1, 1);
    error = find_error_in_rows((cell.len - 1) * n / last, 1);
  }
  return error;
}

// A part of the rows is a smaller call: a causal mask becomes fewer keys, another one is narrowed.
std::string Problem::find_error_in_rows(int64_t first, int64_t count) const {
  const bool shorter = cell.mask == MaskKind::kCausal && count < cell.len;
  const int64_t keys = shorter ? first + count : cell.len;
  AttentionCall call;
  call.query = heads_outer(cell, ConstTensorView(query)).narrow(2, first, count);
  call.key = heads_outer(cell, ConstTensorView(key)).narrow(2, 0, keys);
  call.value = heads_outer(cell, ConstTensorView(value)).narrow(2, 0, keys);
  call.scale = 1 / std::sqrt(static_cast<double>(cell.head_dim));
  call.weights_mode = cell.weights;
  call.dropout.p = cell.dropout_p;
  std::vector<Mask> masks;
  if (cell.mask == MaskKind::kCausal) masks = {Mask::causal(CausalAlign::kBottomRight)};
  if (cell.mask == MaskKind::kBoolean) {
    masks = {Mask::boolean(mask.view().narrow(0, first, count), MaskSense::kExcluded)};
  }
  if (cell.mask == MaskKind::kAdditive) {
    masks = {Mask::additive(mask.view().narrow(0, first, count))};
  }
  call.masks = masks;
  const oracle::AttentionTruth truth = oracle::truth_of(call);
  const ConstTensorView got = heads_outer(cell, ConstTensorView(out)).narrow(2, first, count);
  std::string error = compare(got, truth.reference.out, truth.reference.out_budget);
  if (error.empty() && cell.weights != WeightsMode::kNone) {
    const int rows = cell.weights == WeightsMode::kAverage ? 1 : 2;
    const ConstTensorView found = weights.view().narrow(rows, first, count);
    error = compare(found.narrow(rows + 1, 0, keys), truth.weights, truth.weights_budget);
  }
  return error;
}

}  // namespace polyhead::bench
