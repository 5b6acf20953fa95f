#include "module/training/training_case.h"

#include <limits>

#include "base/message.h"

namespace polyhead::oracle {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

// Not inlined: at -O3 GCC 12 for aarch64 lets the lists of several calls share one place too soon.
template <class T, size_t n>
__attribute__((noinline)) T pick(Random& random, const T (&choices)[n]) {
  return choices[random.below(n)];
}

MultiheadAttention module_of(const TrainingSpec& spec) {
  return random_mha({.embed_dim = spec.embed_dim(),
                     .num_heads = spec.heads,
                     .layout = spec.layout,
                     .bias = spec.bias,
                     .add_bias_kv = spec.bias_kv,
                     .add_zero_attn = spec.zero_attn,
                     .kdim = spec.kdim,
                     .vdim = spec.vdim,
                     .dropout = spec.dropout,
                     .dtype = spec.dtype,
                     .num_kv_heads = spec.kv_heads,
                     .head_dim = spec.head_dim,
                     .qk_norm = spec.qk_norm,
                     .qk_norm_eps = spec.qk_norm_eps,
                     .rope = spec.rope},
                    spec.seed);
}

void draw_rope(Random& random, TrainingSpec* spec) {
  Rope& rope = spec->rope;
  rope.pairs = pick(random, {RopePairs::kHalves, RopePairs::kInterleaved});
  rope.base = pick(random, {100.0, 10000.0, 500000.0});
  rope.rotary_dim = 2 * (1 + random.below(spec->head_dim / 2));
  rope.scaling = pick(
      random, {RopeScaling::kNone, RopeScaling::kLinear, RopeScaling::kNtk, RopeScaling::kLlama3});
  if (rope.scaling != RopeScaling::kNone) rope.factor = 1 + 7 * random.uniform();
  rope.original_length = 64;
  spec->query_position = pick(random, {int64_t{0}, int64_t{0}, int64_t{17}, int64_t{100000}});
  spec->key_position = pick(random, {int64_t{0}, spec->query_position, int64_t{1000}});
  if (spec->causal && spec->align == CausalAlign::kTopLeft) {
    spec->key_position = spec->query_position;  // all else is refused
  }
}

// What torch's class has not.
void draw_heads(Random& random, TrainingSpec* spec) {
  if (random.uniform() < 0.4) {
    spec->kv_heads = 1 + random.below(spec->heads);
    while (spec->heads % spec->kv_heads != 0) --spec->kv_heads;
  }
  if (random.uniform() < 0.3) {
    const bool one_width = spec->kdim == spec->embed_dim() && spec->sharing == Sharing::kAll;
    spec->embed = 1 + random.below(24);
    if (one_width) spec->kdim = spec->vdim = spec->embed;
  }
  spec->qk_norm = random.uniform() < 0.3;
  spec->qk_norm_eps = pick(random, {1e-6, 1e-3, 0.5});
  if (random.uniform() < 0.4 && spec->head_dim >= 2) draw_rope(random, spec);
}

}  // namespace

std::string TrainingSpec::describe() const {
  return message(
      "seed ", seed, ", ", dtype_name(dtype), " B", batch, " L", q_len, " S", kv_len, " H", heads,
      "/", kv_heads, " D", head_dim, " E", embed_dim(), " kdim ", kdim, " vdim ", vdim,
      bias ? "" : ", no bias", bias_kv ? ", bias_kv" : "", zero_attn ? ", zero_attn" : "",
      layout == Layout::kSequenceFirst ? ", sequence first" : "", unbatched ? ", unbatched" : "",
      ", sharing ", static_cast<int>(sharing), ", attn_mask ", static_cast<int>(attn_mask), " of ",
      attn_rank, ", padding ", static_cast<int>(padding), hides_rows ? ", hides rows" : "",
      causal ? ", causal" : "", static_cast<int>(align), ", weights ", static_cast<int>(weights),
      ", dropout ", dropout, qk_norm ? ", norm" : "", ", pairs ", static_cast<int>(rope.pairs),
      " of ", rope.rotary_dim, ", scaling ", static_cast<int>(rope.scaling), ", at ",
      query_position, ", ", key_position);
}

TrainingSpec random_training_spec(uint64_t seed, DType dtype) {
  Random random(seed);
  const auto chance = [&](double p) { return random.uniform() < p; };
  TrainingSpec spec;
  spec.seed = seed;
  spec.dtype = dtype;
  spec.sharing = pick(random, {Sharing::kNone, Sharing::kKeyValue, Sharing::kAll});
  spec.unbatched = chance(0.15);
  spec.batch = spec.unbatched ? 1 : 1 + random.below(3);
  spec.heads = 1 + random.below(4);
  spec.head_dim = pick(random, {int64_t{1}, int64_t{3}, int64_t{5}, int64_t{8}, int64_t{16}});
  spec.q_len = 1 + random.below(20);
  spec.kv_len = spec.sharing == Sharing::kAll ? spec.q_len : 1 + random.below(20);
  if (chance(0.3)) {  // a shared input has one width
    spec.kdim = spec.sharing == Sharing::kAll ? spec.embed_dim() : 1 + random.below(9);
    spec.vdim = spec.sharing == Sharing::kNone ? 1 + random.below(9) : spec.kdim;
  }
  spec.bias = chance(0.7);
  spec.bias_kv = chance(0.3);
  spec.zero_attn = chance(0.3);
  spec.layout = chance(0.5) ? Layout::kBatchFirst : Layout::kSequenceFirst;
  spec.attn_mask = pick(random, {MaskKind::kNone, MaskKind::kBool, MaskKind::kFloat});
  spec.attn_rank = static_cast<int>(2 + random.below(3));
  spec.padding = pick(random, {MaskKind::kNone, MaskKind::kBool, MaskKind::kFloat});
  spec.hides_rows = chance(0.3);
  spec.causal = chance(0.3);
  spec.align = chance(0.5) ? CausalAlign::kTopLeft : CausalAlign::kBottomRight;
  spec.weights = pick(random, {WeightsMode::kNone, WeightsMode::kAverage, WeightsMode::kPerHead});
  spec.dropout = pick(random, {0.0, 0.0, 0.1, 0.5, 1.0});
  spec.deviation = pick(random, {0.1, 1.0, 3.0});
  draw_heads(random, &spec);
  return spec;
}

TrainingProblem::TrainingProblem(const TrainingSpec& drawn)
    : spec(drawn), module(module_of(drawn)) {
  const MultiheadAttention::Config& config = module.config();
  query = rows(spec.q_len, spec.embed_dim(), 1);
  if (spec.sharing != Sharing::kAll) key = rows(spec.kv_len, config.kdim, 2);
  if (spec.sharing == Sharing::kNone) value = rows(spec.kv_len, config.vdim, 3);
  draw_masks();
  const int64_t columns = spec.kv_len + spec.bias_kv + spec.zero_attn;
  d_out = rows(spec.q_len, spec.embed_dim(), 4);
  std::vector<int64_t> shape;
  if (!spec.unbatched) shape.push_back(spec.batch);
  if (spec.weights == WeightsMode::kPerHead) shape.push_back(spec.heads);
  shape.insert(shape.end(), {spec.q_len, columns});
  if (spec.weights == WeightsMode::kNone) return;
  Random random(spec.seed + 5);
  d_weights = Tensor(spec.dtype, shape);
  fill_with(d_weights, [&](const Index&) { return random.normal(); });
}

Tensor TrainingProblem::rows(int64_t len, int64_t features, uint64_t seed) const {
  const uint64_t own = 10 * spec.seed + seed;
  if (spec.unbatched) return random_tensor(spec.dtype, {len, features}, own, spec.deviation);
  if (spec.layout == Layout::kSequenceFirst) {
    return random_tensor(spec.dtype, {len, spec.batch, features}, own, spec.deviation);
  }
  return random_tensor(spec.dtype, {spec.batch, len, features}, own, spec.deviation);
}

void TrainingProblem::draw_masks() {
  Random random(spec.seed + 6);
  const auto draw = [&](MaskKind kind, const std::vector<int64_t>& shape, int hidden_dim) {
    if (kind == MaskKind::kNone) return Tensor();
    Tensor mask(kind == MaskKind::kBool ? DType::kBool : spec.dtype, shape);
    const auto last = shape.size() - 1;
    for_each_index(shape, [&](const Index& at) {
      // Never the first key alone, unless a whole row is to go.
      const bool row = spec.hides_rows && at[static_cast<size_t>(hidden_dim)] == 0;
      const bool hidden = row || (random.uniform() < 0.25 && at[last] != 0);
      const double number = hidden ? -kInf : random.normal();
      if (kind == MaskKind::kFloat) return write(mask, at, number);
      mask.data_as<bool>()[offset_of(mask, at)] = hidden;
    });
    return mask;
  };
  const int64_t b = spec.batch, h = spec.heads, l = spec.q_len, s = spec.kv_len;
  std::vector<int64_t> shape = {l, s};
  if (spec.attn_rank == 3) shape.insert(shape.begin(), b * h);
  if (spec.attn_rank == 4) {
    shape = {b, h, l, s};
    for (int64_t& size : shape) size = random.uniform() < 0.4 ? 1 : size;
  }
  attn_mask = draw(spec.attn_mask, shape, static_cast<int>(shape.size()) - 2);
  shape = {b, s};
  if (spec.unbatched) shape = {s};
  padding = draw(spec.padding, shape, 0);
}

ForwardOptions TrainingProblem::options() const {
  return {.attn_mask = attn_mask.view(),
          .key_padding_mask = padding.view(),
          .is_causal = spec.causal,
          .causal_align = spec.align,
          .need_weights = spec.weights,
          .empty_rows = spec.empty_rows,
          .query_position = spec.query_position,
          .key_position = spec.key_position};
}

ReferenceStep TrainingProblem::reference_step() const {
  return {.query = query.view(),
          .key = key_view(),
          .value = value_view(),
          .options = options(),
          .dropout = dropout,
          .outputs = cotangents()};
}

InputGradients TrainingProblem::targets(TrainingResult* result) const {
  const auto like = [&](const ConstTensorView& x) { return Tensor(spec.dtype, x.shape()); };
  result->d_query = like(query);
  result->d_key = like(key_view());
  result->d_value = like(value_view());
  if (spec.attn_mask == MaskKind::kFloat) result->d_attn_mask = like(attn_mask);
  if (spec.padding == MaskKind::kFloat) result->d_padding = like(padding);
  result->parameters = ParameterGradients(module.state_dict());
  return {.d_query = result->d_query.view(),
          .d_key = result->d_key.view(),
          .d_value = result->d_value.view(),
          .d_attn_mask = result->d_attn_mask.view(),
          .d_key_padding_mask = result->d_padding.view()};
}

TrainingResult TrainingProblem::run() const {
  TrainingContext context;
  return run(&context);
}

TrainingResult TrainingProblem::run(TrainingContext* context) const {
  TrainingResult result;
  context->dropout = dropout;
  result.forward = module.forward(query, key_view(), value_view(), options(), context);
  const InputGradients to = targets(&result);
  module.backward(*context, cotangents(), to, result.parameters.views());
  return result;
}

std::vector<std::pair<std::string, ConstTensorView>> TrainingResult::gradients() const {
  std::vector<std::pair<std::string, ConstTensorView>> all = {
      {"d_query", d_query.view()}, {"d_key", d_key.view()}, {"d_value", d_value.view()}};
  if (d_attn_mask.defined()) all.emplace_back("d_attn_mask", d_attn_mask.view());
  if (d_padding.defined()) all.emplace_back("d_key_padding_mask", d_padding.view());
  for (const auto& [name, view] : parameters.views()) all.emplace_back(name, view);
  return all;
}

}  // namespace polyhead::oracle
