#include "testing/attention_case.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "testing/elements.h"

namespace polyhead::oracle {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

void fill_normal(const TensorView& view, double deviation, Random& random) {
  fill_with(view, [&](const Index&) { return deviation * random.normal(); });
}

double scale_of(const AttentionCase& spec) {
  const auto head_dim = static_cast<double>(std::max<int64_t>(spec.head_dim, 1));
  return spec.scale.value_or(1 / std::sqrt(head_dim));
}

// Keys whose score climbs (or falls) by `step` from one to the next.
void fill_staircase(const AttentionProblem& problem, double step, Random& random) {
  fill_with(problem.query.view(), [&](const Index&) { return 1 + 0.01 * random.normal(); });
  const double scale = scale_of(problem.spec) == 0 ? 1 : scale_of(problem.spec);
  const double per_element = step / (scale * static_cast<double>(problem.spec.head_dim));
  fill_with(problem.key.view(), [&](const Index& index) {
    return per_element * (static_cast<double>(index[2]) + 0.1 * random.normal());
  });
}

void fill_inputs(const AttentionProblem& problem, Random& random) {
  const AttentionCase& spec = problem.spec;
  const bool single = spec.dtype == DType::kFloat32;
  fill_normal(problem.query.view(), 1, random);
  fill_normal(problem.key.view(), 1, random);
  fill_normal(problem.value.view(), 1, random);
  switch (spec.regime) {
    case Regime::kNearUniform:
      return fill_normal(problem.query.view(), 0.05, random);
    case Regime::kSigma1:
      return;
    case Regime::kPeaked:
      return fill_with(problem.query.view(), [&](const Index& index) {
        const auto last = static_cast<double>(std::max<int64_t>(spec.heads - 1, 1));
        return (4 + 12 * static_cast<double>(index[1]) / last) * random.normal();
      });
    case Regime::kAllEqual:
      fill(problem.query.view(), 0.5);
      return fill(problem.key.view(), -0.75);
    case Regime::kHuge:
      fill_normal(problem.query.view(), 30, random);
      fill_normal(problem.key.view(), 30, random);
      return fill_normal(problem.value.view(), 0x1p60, random);
    case Regime::kDenormal:
      fill_normal(problem.query.view(), single ? 0x1p-130 : 0x1p-1030, random);
      return fill_normal(problem.value.view(), single ? 0x1p-130 : 0x1p-1030, random);
    case Regime::kDescending:
      return fill_staircase(problem, -2.5, random);
    case Regime::kAscending:
      return fill_staircase(problem, 2.5, random);
  }
}

bool is_masked(const MaskSpec& mask, const Index& bhls, int64_t kv_len, Random& random) {
  switch (mask.pattern) {
    case MaskPattern::kRandom:
      return random.uniform() < mask.density;
    case MaskPattern::kPadding:  // a length of its own for each batch item
      return bhls[3] > (bhls[0] * 7919 + 3) % kv_len;
    case MaskPattern::kEmptyRows:
      return bhls[2] % 3 == 1 || random.uniform() < mask.density;
    case MaskPattern::kOneKey:
      return bhls[3] != (bhls[2] * 5 + bhls[1] + bhls[0]) % kv_len;
  }
  return false;
}

void store_number(const TensorView& view, const Index& index, double x) {
  const int64_t offset = offset_of(view, index);
  switch (view.dtype()) {
    case DType::kBool:
      view.data_as<bool>()[offset] = x != 0;
      return;
    case DType::kInt32:
      view.data_as<int32_t>()[offset] = static_cast<int32_t>(x);
      return;
    case DType::kInt64:
      view.data_as<int64_t>()[offset] = static_cast<int64_t>(x);
      return;
    default:
      write(view, index, x);
  }
}

int64_t sum_of(const std::vector<int64_t>& numbers) {
  return std::accumulate(numbers.begin(), numbers.end(), int64_t{0});
}

AttentionCase with_sums_of_lengths(AttentionCase spec) {
  if (!spec.packed()) return spec;
  spec.batch = 1;
  spec.q_len = sum_of(spec.lengths.queries);
  spec.kv_len = sum_of(spec.lengths.keys);
  return spec;
}

}  // namespace

AttentionProblem::AttentionProblem(const AttentionCase& given)
    : spec(with_sums_of_lengths(given)),
      query(spec.dtype, {spec.batch, spec.heads, spec.q_len, spec.head_dim}, spec.storage),
      key(spec.dtype, {spec.batch, spec.kv_heads, spec.kv_len, spec.head_dim}, spec.storage),
      value(spec.dtype, {spec.batch, spec.kv_heads, spec.kv_len, spec.v_head_dim}, spec.storage) {
  if (spec.packed()) {
    cu_seqlens_q = bounds_of(spec.lengths.queries);
    cu_seqlens_k = bounds_of(spec.lengths.keys);
  }
  Random random(spec.seed);
  fill_inputs(*this, random);
  if (spec.extra > 0) {
    extra_key = GuardedTensor(spec.dtype, {spec.kv_heads, spec.extra, spec.head_dim}, spec.storage);
    extra_value =
        GuardedTensor(spec.dtype, {spec.kv_heads, spec.extra, spec.v_head_dim}, spec.storage);
    fill_normal(extra_key.view(), 1, random);
    fill_normal(extra_value.view(), 1, random);
  }
  for (const MaskSpec& mask : spec.masks) add_mask(mask, random);
  if (!spec.sinks) return;
  sinks = GuardedTensor(spec.dtype, {spec.heads}, spec.storage);
  fill_normal(sinks.view(), 2, random);
}

GuardedTensor AttentionProblem::bounds_of(const std::vector<int64_t>& lengths) const {
  GuardedTensor bounds(spec.lengths.dtype, {spec.num_sequences() + 1}, spec.storage);
  int64_t sum = 0;
  for (size_t n = 0; n <= lengths.size(); ++n) {
    store_number(bounds.view(), {static_cast<int64_t>(n)}, static_cast<double>(sum));
    if (n < lengths.size()) sum += lengths[n];
  }
  return bounds;
}

void AttentionProblem::add_mask(const MaskSpec& mask, Random& random) {
  if (mask.kind == Mask::Kind::kKeyLengths) return add_key_lengths(mask, random);
  if (mask.kind == Mask::Kind::kAlibi) return add_slopes(mask, random);
  if (mask.kind == Mask::Kind::kSegments) return add_segments(mask, random);
  if (mask.kind == Mask::Kind::kCausal) return masks.push_back(Mask::causal(mask.align));
  if (mask.kind == Mask::Kind::kWindow) {
    return masks.push_back(Mask::window(mask.left, mask.right, mask.align));
  }
  const int64_t full[] = {spec.batch, spec.heads, spec.q_len, spec.kv_len};
  const size_t rank = std::strlen(mask.dims);
  std::vector<int64_t> shape(rank);
  for (size_t n = 0; n < rank; ++n) shape[n] = mask.dims[n] == '1' ? 1 : full[4 - rank + n];
  const bool boolean = mask.kind == Mask::Kind::kBoolean;
  GuardedTensor tensor(boolean ? DType::kBool : mask.dtype, shape, spec.storage);
  const bool can_be_inf =
      tensor.view().dtype() == DType::kFloat32 || tensor.view().dtype() == DType::kFloat64;
  for_each_index(shape, [&](const Index& index) {
    Index bhls{};
    for (size_t n = 0; n < rank; ++n) bhls[4 - rank + n] = index[n];
    const bool masked = is_masked(mask, bhls, std::max<int64_t>(spec.kv_len, 1), random);
    double x = masked == (mask.sense == MaskSense::kExcluded);
    if (!boolean) {
      const double number = can_be_inf ? random.normal() : static_cast<double>(random.below(3));
      x = masked && can_be_inf ? -kInf / mask.factor : number;
    }
    store_number(tensor.view(), index, x);
  });
  masks.push_back(boolean ? Mask::boolean(tensor.view(), mask.sense)
                          : Mask::additive(tensor.view(), mask.factor));
  mask_tensors.push_back(std::move(tensor));
}

void AttentionProblem::add_key_lengths(const MaskSpec& mask, Random& random) {
  const DType dtype = mask.dtype == DType::kInt32 ? DType::kInt32 : DType::kInt64;
  GuardedTensor lengths(dtype, {spec.num_sequences()}, spec.storage);
  for (int64_t n = 0; n < spec.num_sequences(); ++n) {
    const int64_t keys = spec.packed() ? spec.lengths.keys[static_cast<size_t>(n)] : spec.kv_len;
    store_number(lengths.view(), {n}, static_cast<double>(random.below(keys + 1)));
  }
  masks.push_back(Mask::key_lengths(lengths.view()));
  mask_tensors.push_back(std::move(lengths));
}

void AttentionProblem::add_segments(const MaskSpec& mask, Random& random) {
  const DType dtype = mask.dtype == DType::kInt32 ? DType::kInt32 : DType::kInt64;
  const auto ids = [&](int64_t count) {  // in runs, as documents are, or any
    const bool by_item = mask.dims[0] == 'b';
    GuardedTensor tensor(dtype, by_item ? std::vector{spec.batch, count} : std::vector{count},
                         spec.storage);
    for_each_index(tensor.view().shape(), [&](const Index& at) {
      const int64_t place = at[by_item ? 1 : 0] + (by_item ? 5 * at[0] : 0);
      const bool any = mask.pattern == MaskPattern::kRandom;
      store_number(tensor.view(), at, static_cast<double>(any ? random.below(3) : place / 13));
    });
    return tensor;
  };
  mask_tensors.push_back(ids(spec.q_len));
  const TensorView of_queries = mask_tensors.back().view();
  mask_tensors.push_back(ids(spec.kv_len));
  masks.push_back(Mask::segments(of_queries, mask_tensors.back().view()));
}

void AttentionProblem::add_slopes(const MaskSpec& mask, Random& random) {
  const DType dtype = mask.dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
  const bool by_item = mask.dims[0] == 'b';
  const std::vector<int64_t> shape =
      by_item ? std::vector{spec.num_sequences(), spec.heads} : std::vector{spec.heads};
  GuardedTensor slopes(dtype, shape, spec.storage);
  fill_with(slopes.view(), [&](const Index&) { return random.uniform(); });
  masks.push_back(Mask::alibi(slopes.view(), mask.align));
  mask_tensors.push_back(std::move(slopes));
}

AttentionCall AttentionProblem::call() const {
  AttentionCall call{.query = query.view(), .key = key.view(), .value = value.view()};
  if (extra_key.defined()) {
    call.extra_key = extra_key.view();
    call.extra_value = extra_value.view();
  }
  if (spec.packed()) {
    call.cu_seqlens_q = cu_seqlens_q.view();
    call.cu_seqlens_k = cu_seqlens_k.view();
  }
  call.scale = scale_of(spec);
  call.softcap = spec.softcap;
  call.score_mod = spec.score_mod;
  call.masks = masks;
  call.sinks = sinks.view();
  call.empty_rows = spec.empty_rows;
  call.weights_mode = spec.weights;
  call.dropout = {spec.dropout_p, spec.seed + (uint64_t{1} << 40), 5};  // both words of the key
  return call;
}

namespace {

Mask narrowed_segments(const Mask& mask, int dim, int64_t start, int64_t length) {
  const auto part = [&](const ConstTensorView& ids, int own) {  // `own`: of L or S
    if (dim == 0 && ids.rank() == 2) return ids.narrow(0, start, length);
    return dim == own ? ids.narrow(ids.rank() - 1, start, length) : ids;
  };
  return Mask::segments(part(mask.tensor(), 2), part(mask.key_ids(), 3));
}

}  // namespace

std::vector<Mask> narrowed(const std::vector<Mask>& masks, int dim, int64_t start, int64_t length) {
  std::vector<Mask> result;
  for (const Mask& mask : masks) {
    if (!is_tensor_mask(mask)) {
      const ConstTensorView& tensor = mask.tensor();
      if (mask.kind() == Mask::Kind::kSegments) {
        result.push_back(narrowed_segments(mask, dim, start, length));
      } else if (mask.kind() == Mask::Kind::kKeyLengths && dim == 0) {
        result.push_back(Mask::key_lengths(tensor.narrow(0, start, length)));
      } else if (mask.kind() == Mask::Kind::kAlibi && tensor.rank() - 2 + dim >= 0 && dim < 2) {
        const ConstTensorView part = tensor.narrow(tensor.rank() - 2 + dim, start, length);
        result.push_back(Mask::alibi(part, mask.offset()));
      } else {
        result.push_back(mask);
      }
      continue;
    }
    const int at = dim - (4 - mask.tensor().rank());
    const bool broadcast = at < 0 || mask.tensor().size(at) == 1;
    if (broadcast) {
      result.push_back(mask);
      continue;
    }
    const ConstTensorView part = mask.tensor().narrow(at, start, length);
    result.push_back(mask.kind() == Mask::Kind::kBoolean ? Mask::boolean(part, mask.sense())
                                                         : Mask::additive(part, mask.factor()));
  }
  return result;
}

AttentionRun run_attention_case(AttentionCall call, const std::string& plan, Storage storage) {
  const DType dtype = call.query.dtype();
  const int64_t batch = call.batch(), heads = call.num_heads(), q_len = call.q_len(),
                columns = call.kv_len() + call.num_extra();
  AttentionRun run;
  run.out = GuardedTensor(dtype, {batch, heads, q_len, call.v_head_dim()}, storage);
  run.lse = GuardedTensor(dtype, {batch, heads, q_len}, storage);
  run.lse_rest = GuardedTensor(dtype, {batch, heads, q_len}, storage);
  if (call.weights_mode == WeightsMode::kAverage) {
    run.weights = GuardedTensor(dtype, {batch, q_len, columns}, storage);
  } else if (call.weights_mode == WeightsMode::kPerHead) {
    run.weights = GuardedTensor(dtype, {batch, heads, q_len, columns}, storage);
  }
  call.outputs = {run.out.view(), run.lse.view(), run.weights.view(), run.lse_rest.view()};
  if (!plan.empty()) call.plan = plan.c_str();
  validate(call, "attention_forward");
  run_attention(call);
  return run;
}

}  // namespace polyhead::oracle
