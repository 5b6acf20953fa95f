#include <polyhead/multihead_attention.h>

#include <utility>

#include "base/checked_math.h"
#include "module/cached/cached_forward.h"
#include "module/forward_inputs.h"
#include "module/heads/rotary.h"
#include "module/initialise.h"
#include "module/module_files.h"
#include "module/module_metadata.h"
#include "module/require.h"
#include "module/training/backward_inputs.h"

namespace polyhead {
namespace {

int64_t positive(int64_t value, const char* name) {
  if (value <= 0) Require(kMhaName).fail(name, message("got ", value), "greater than 0");
  return value;
}

double probability(double value, const char* name) {
  if (value >= 0 && value <= 1) return value;  // not so if it is NaN
  Require(kMhaName).fail(name, message("got ", value), "between 0 and 1");
}

// The same for num_heads, num_kv_heads and head_dim; embed_dim is greater than 0.
void check_heads(MultiheadAttention::Config& config) {
  const Require require(kMhaName);
  positive(config.num_heads, "num_heads");
  if (config.num_kv_heads == 0) config.num_kv_heads = config.num_heads;
  positive(config.num_kv_heads, "num_kv_heads");
  if (config.num_heads % config.num_kv_heads != 0) {
    require.fail("num_kv_heads", message("got ", config.num_kv_heads),
                 message("a divisor of num_heads ", config.num_heads));
  }
  if (config.head_dim == 0) {
    if (config.embed_dim % config.num_heads != 0) {
      require.fail("num_heads", message("got ", config.num_heads),
                   message("a divisor of embed_dim ", config.embed_dim));
    }
    config.head_dim = config.embed_dim / config.num_heads;
  }
  positive(config.head_dim, "head_dim");
  int64_t width;
  if (!checked_multiply(3, config.num_heads, &width) ||
      !checked_multiply(width, config.head_dim, &width)) {
    require.fail("head_dim", message("got ", config.head_dim), "smaller");
  }
}

// Checks the configuration and fills in its defaults.
MultiheadAttention::Config checked(MultiheadAttention::Config config) {
  const Require require(kMhaName);
  positive(config.embed_dim, "embed_dim");
  check_heads(config);
  if (config.layout != Layout::kBatchFirst && config.layout != Layout::kSequenceFirst) {
    require.fail("layout", "not said", "Layout::kBatchFirst or Layout::kSequenceFirst");
  }
  if (config.kdim != 0) positive(config.kdim, "kdim");
  if (config.vdim != 0) positive(config.vdim, "vdim");
  if (config.kdim == 0) config.kdim = config.embed_dim;
  if (config.vdim == 0) config.vdim = config.embed_dim;
  probability(config.dropout, "dropout");
  config.rope = checked_rope(config.rope, config.head_dim, kMhaName);
  if (!(config.qk_norm_eps >= 0 && config.qk_norm_eps <= 1)) {  // so that NaN is none
    require.fail("qk_norm_eps", message("got ", config.qk_norm_eps), "between 0 and 1");
  }
  if (config.dtype != DType::kFloat32 && config.dtype != DType::kFloat64) {
    require.fail("dtype", message("got ", dtype_name(config.dtype)), "float32 or float64");
  }
  return config;
}

}  // namespace

struct MultiheadAttention::Impl {
  explicit Impl(const Config& checked_config)
      : config(checked_config),
        attention(sizes_of(config), make_parameters(sizes_of(config), config.bias)),
        state_dict(mha_state_dict(attention.parameters())) {}

  ForwardInputs checked(const ConstTensorView& query, const ConstTensorView& key,
                        const ConstTensorView& value, const ForwardOptions& options) const {
    return check_mha_inputs(attention.sizes(), config.layout, query, key, value, options);
  }

  ProjectedCall call_of(const ForwardInputs& inputs, const ForwardOptions& options,
                        const ForwardOutputs& outputs) const {
    ProjectedCall call = complete_call(inputs, attention.sizes(), options.need_weights, outputs.out,
                                       outputs.weights, kMhaName);
    call.empty_rows = options.empty_rows;
    return call;
  }

  // Memory for what a forward returns.
  Result results(const ConstTensorView& query, const ConstTensorView& key,
                 const ConstTensorView& value, const ForwardOptions& options) const {
    const AttentionSizes& sizes = attention.sizes();
    const ForwardInputs inputs = checked(query, key, value, options);
    Result result;
    result.out = Tensor(sizes.dtype, out_shape(inputs, sizes));
    if (options.need_weights != WeightsMode::kNone) {
      result.weights = Tensor(sizes.dtype, weights_shape(inputs, sizes, options.need_weights));
    }
    return result;
  }

  Config config;
  ProjectedAttention attention;
  ParameterViews state_dict;  // of its parameters
};

MultiheadAttention::MultiheadAttention(const Config& config, uint64_t seed)
    : impl_(std::make_unique<Impl>(checked(config))) {
  initialise_mha(impl_->attention.parameters(), seed);
  impl_->attention.repack();
}

MultiheadAttention::MultiheadAttention(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
MultiheadAttention::MultiheadAttention(MultiheadAttention&&) noexcept = default;
MultiheadAttention& MultiheadAttention::operator=(MultiheadAttention&&) noexcept = default;
MultiheadAttention::~MultiheadAttention() = default;

MultiheadAttention MultiheadAttention::load(const std::string& path, const LoadOptions& options) {
  MhaFile file = read_mha(path, options);
  auto impl = std::make_unique<Impl>(checked(file.config));
  fill_parameters(mha_load_targets(impl->attention.parameters(), impl->attention.sizes()),
                  file.tensors, kMhaName);
  impl->attention.repack();
  return MultiheadAttention(std::move(impl));
}

void MultiheadAttention::save(const std::string& path, const std::string& prefix) const {
  save_module(path, prefix, state_dict(), metadata_of(config()));
}

MultiheadAttention::Result MultiheadAttention::forward(const ConstTensorView& query,
                                                       const ConstTensorView& key,
                                                       const ConstTensorView& value,
                                                       const ForwardOptions& options) const {
  Result result = impl_->results(query, key, value, options);
  forward_into(query, key, value, options, result.out, result.weights);
  return result;
}

void MultiheadAttention::forward_into(const ConstTensorView& query, const ConstTensorView& key,
                                      const ConstTensorView& value, const ForwardOptions& options,
                                      const TensorView& out, const TensorView& weights) const {
  const ForwardInputs inputs = impl_->checked(query, key, value, options);
  impl_->attention.run(impl_->call_of(inputs, options, {out, weights}));
}

MultiheadAttention::Result MultiheadAttention::forward(const ConstTensorView& query,
                                                       const ConstTensorView& key,
                                                       const ConstTensorView& value,
                                                       const ForwardOptions& options,
                                                       TrainingContext* context) const {
  Result result = impl_->results(query, key, value, options);
  forward_into(query, key, value, options, {result.out, result.weights}, context);
  return result;
}

void MultiheadAttention::forward_into(const ConstTensorView& query, const ConstTensorView& key,
                                      const ConstTensorView& value, const ForwardOptions& options,
                                      const ForwardOutputs& outputs,
                                      TrainingContext* context) const {
  if (context == nullptr) Require(kMhaName).fail("context", "is null", "given");
  const ForwardInputs inputs = impl_->checked(query, key, value, options);
  const double p = context->dropout.p.value_or(impl_->config.dropout);
  impl_->attention.run_training(inputs, impl_->call_of(inputs, options, outputs),
                                probability(p, "context: dropout.p"), context);
}

void MultiheadAttention::backward(const TrainingContext& context, const OutputGradients& outputs,
                                  const InputGradients& inputs, const ParameterViews& parameters,
                                  GradientMode mode) const {
  ProjectedAttention& attention = impl_->attention;
  attention.backward(
      context, check_backward(attention.sizes(), attention.trained_inputs(context, kMhaName),
                              impl_->state_dict, {outputs, inputs, parameters, mode}, kMhaName));
}

Tensor MultiheadAttention::forward_cached(const ConstTensorView& query, KvCache* cache,
                                          const CachedForwardOptions& options) const {
  const ForwardInputs inputs =
      check_cached_inputs(impl_->attention.sizes(), impl_->config.layout, query, cache, options);
  Tensor out(impl_->config.dtype, out_shape(inputs, impl_->attention.sizes()));
  run_cached_forward(impl_->attention, inputs, cache, options, out);
  return out;
}

void MultiheadAttention::forward_cached_into(const ConstTensorView& query, KvCache* cache,
                                             const CachedForwardOptions& options,
                                             const TensorView& out) const {
  const ForwardInputs inputs =
      check_cached_inputs(impl_->attention.sizes(), impl_->config.layout, query, cache, options);
  run_cached_forward(impl_->attention, inputs, cache, options, out);
}

KvCache::Config MultiheadAttention::cache_config(int64_t batch, int64_t num_pages) const {
  return config_of_cache(impl_->attention.sizes(), batch, num_pages);
}

const MultiheadAttention::Config& MultiheadAttention::config() const { return impl_->config; }

std::vector<std::pair<std::string, ConstTensorView>> MultiheadAttention::state_dict() const {
  return read_only(impl_->state_dict);
}

void MultiheadAttention::set_parameter(const std::string& name, const ConstTensorView& value) {
  assign_parameter(impl_->state_dict, name, value, kMhaName, [this] { impl_->attention.repack(); });
}

ParameterViews MultiheadAttention::parameters() { return impl_->state_dict; }

void MultiheadAttention::repack() { impl_->attention.repack(); }

}  // namespace polyhead
