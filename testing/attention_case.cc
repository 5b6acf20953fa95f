#include "testing/attention_case.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <ostream>

#include "base/message.h"
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
  const double per_element =
      step / (scale_of(problem.spec) * static_cast<double>(problem.spec.head_dim));
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

}  // namespace

const char* regime_name(Regime regime) {
  static constexpr const char* kNames[] = {"near-uniform", "sigma 1",  "peaked",     "all equal",
                                           "huge",         "denormal", "descending", "ascending"};
  return kNames[static_cast<size_t>(regime)];
}

std::string AttentionCase::describe() const {
  std::string text =
      message(dtype_name(dtype), " B", batch, " H", heads, "/", kv_heads, " L", q_len, " S", kv_len,
              " D", head_dim, " Dv", v_head_dim, " X", extra, ", ", regime_name(regime),
              ", storage ", static_cast<int>(storage), ", weights ", static_cast<int>(weights),
              empty_rows == EmptyRow::kNan ? ", NaN rows" : "", ", dropout ", dropout_p,
              with_rest ? "" : ", without lse_rest", ", seed ", seed);
  for (const MaskSpec& mask : masks) {
    text += message(", mask kind ", static_cast<int>(mask.kind), " ", mask.dims, " pattern ",
                    static_cast<int>(mask.pattern));
  }
  return text;
}

void PrintTo(const AttentionCase& spec, std::ostream* stream) { *stream << spec.describe(); }
void PrintTo(Regime regime, std::ostream* stream) { *stream << regime_name(regime); }

AttentionProblem::AttentionProblem(const AttentionCase& given)
    : spec(given),
      query(spec.dtype, {spec.batch, spec.heads, spec.q_len, spec.head_dim}, spec.storage),
      key(spec.dtype, {spec.batch, spec.kv_heads, spec.kv_len, spec.head_dim}, spec.storage),
      value(spec.dtype, {spec.batch, spec.kv_heads, spec.kv_len, spec.v_head_dim}, spec.storage) {
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
}

void AttentionProblem::add_mask(const MaskSpec& mask, Random& random) {
  if (mask.kind == Mask::Kind::kCausal) {
    masks.push_back(Mask::causal(mask.align));
    return;
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

AttentionCall AttentionProblem::call() const {
  AttentionCall call{.query = query.view(), .key = key.view(), .value = value.view()};
  if (extra_key.defined()) {
    call.extra_key = extra_key.view();
    call.extra_value = extra_value.view();
  }
  call.scale = scale_of(spec);
  call.masks = masks;
  call.empty_rows = spec.empty_rows;
  call.weights_mode = spec.weights;
  call.dropout = {spec.dropout_p, spec.seed + (uint64_t{1} << 40), 5};  // both words of the key
  return call;
}

std::vector<Mask> narrowed(const std::vector<Mask>& masks, int dim, int64_t start, int64_t length) {
  std::vector<Mask> result;
  for (const Mask& mask : masks) {
    const int at = dim - (4 - mask.tensor().rank());
    const bool broadcast = at < 0 || mask.tensor().size(at) == 1;
    if (mask.kind() == Mask::Kind::kCausal || broadcast) {
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
