#include <utility>

#include <polyhead/multihead_attention.h>
#include "base/checked_math.h"
#include "module/forward_inputs.h"
#include "module/initialise.h"
#include "module/module_files.h"
#include "module/require.h"
#include "module/training/backward_inputs.h"

namespace polyhead {
namespace {

AttentionSizes checked_sizes(int64_t embed_size, int64_t num_heads, HeadWidth width, DType dtype) {
  const Require require(kScratchName);
  if (embed_size <= 0) require.fail("embed_size", message("got ", embed_size), "greater than 0");
  if (num_heads <= 0) require.fail("num_heads", message("got ", num_heads), "greater than 0");
  const bool full = width == HeadWidth::kFull;
  if (!full && embed_size % num_heads != 0) {
    throw InvalidArgument(message(kScratchName,
                                  ": num_heads: Embedding size needs to be divisible by num_heads;"
                                  " got embed_size ",
                                  embed_size, " and num_heads ", num_heads));
  }
  int64_t rows;
  if (!checked_multiply(3, num_heads, &rows) || !checked_multiply(rows, embed_size, &rows)) {
    require.fail("num_heads", message("got ", num_heads), "fewer");
  }
  if (dtype != DType::kFloat32 && dtype != DType::kFloat64) {
    require.fail("dtype", message("got ", dtype_name(dtype)), "float32 or float64");
  }
  return {.embed_dim = embed_size,
          .num_heads = num_heads,
          .num_kv_heads = num_heads,
          .head_dim = full ? embed_size : embed_size / num_heads,
          .kdim = embed_size,
          .vdim = embed_size,
          .dtype = dtype};
}

}  // namespace

struct FromScratchMultiHeadAttention::Impl {
  Impl(const AttentionSizes& sizes, HeadWidth head_width)
      : width(head_width),
        attention(sizes, make_parameters(sizes, /*bias=*/true)),
        state_dict(scratch_state_dict(attention.parameters())) {}

  ForwardInputs checked(const ConstTensorView& q, const ConstTensorView& k,
                        const ConstTensorView& v, const ConstTensorView& mask) const {
    return check_scratch_inputs(attention.sizes(), q, k, v, mask);
  }

  ProjectedCall call_of(const ForwardInputs& inputs, const ForwardOutputs& outputs) const {
    WeightsMode mode = WeightsMode::kNone;
    if (outputs.weights.defined()) {
      mode = outputs.weights.rank() == 4 ? WeightsMode::kPerHead : WeightsMode::kAverage;
    }
    return complete_call(inputs, attention.sizes(), mode, outputs.out, outputs.weights,
                         kScratchName);
  }

  HeadWidth width;
  ProjectedAttention attention;
  ParameterViews state_dict;  // of its parameters
};

using Scratch = FromScratchMultiHeadAttention;

Scratch::FromScratchMultiHeadAttention(int64_t embed_size, int64_t num_heads, HeadWidth width,
                                       uint64_t seed, DType dtype)
    : impl_(std::make_unique<Impl>(checked_sizes(embed_size, num_heads, width, dtype), width)) {
  initialise_scratch(impl_->attention.parameters(), seed);
  impl_->attention.repack();
}

Scratch::FromScratchMultiHeadAttention(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Scratch::FromScratchMultiHeadAttention(Scratch&&) noexcept = default;
Scratch& Scratch::operator=(Scratch&&) noexcept = default;
Scratch::~FromScratchMultiHeadAttention() = default;

Scratch Scratch::load(const std::string& path, const LoadOptions& options) {
  ScratchFile file = read_scratch(path, options);
  const AttentionSizes sizes =
      checked_sizes(file.embed_size, file.num_heads, file.width, file.dtype);
  auto impl = std::make_unique<Impl>(sizes, file.width);
  fill_parameters(impl->state_dict, file.tensors, kScratchName);
  impl->attention.repack();
  return Scratch(std::move(impl));
}

void Scratch::save(const std::string& path, const std::string& prefix) const {
  save_module(path, prefix, state_dict(), {{"num_heads", std::to_string(num_heads())}});
}

Tensor Scratch::forward(const ConstTensorView& q, const ConstTensorView& k,
                        const ConstTensorView& v, const ConstTensorView& mask) const {
  Tensor out(dtype(), out_shape(impl_->checked(q, k, v, mask), impl_->attention.sizes()));
  forward_into(q, k, v, mask, out);
  return out;
}

void Scratch::forward_into(const ConstTensorView& q, const ConstTensorView& k,
                           const ConstTensorView& v, const ConstTensorView& mask,
                           const TensorView& out, const TensorView& weights) const {
  const ForwardInputs inputs = impl_->checked(q, k, v, mask);
  impl_->attention.run(impl_->call_of(inputs, {out, weights}));
}

Tensor Scratch::forward(const ConstTensorView& q, const ConstTensorView& k,
                        const ConstTensorView& v, const ConstTensorView& mask,
                        TrainingContext* context) const {
  Tensor out(dtype(), out_shape(impl_->checked(q, k, v, mask), impl_->attention.sizes()));
  forward_into(q, k, v, mask, {.out = out}, context);
  return out;
}

void Scratch::forward_into(const ConstTensorView& q, const ConstTensorView& k,
                           const ConstTensorView& v, const ConstTensorView& mask,
                           const ForwardOutputs& outputs, TrainingContext* context) const {
  if (context == nullptr) Require(kScratchName).fail("context", "is null", "given");
  const ForwardInputs inputs = impl_->checked(q, k, v, mask);
  impl_->attention.run_training(inputs, impl_->call_of(inputs, outputs), /*dropout_p=*/0, context);
}

void Scratch::backward(const TrainingContext& context, const OutputGradients& outputs,
                       const InputGradients& inputs, const ParameterViews& parameters,
                       GradientMode mode) const {
  ProjectedAttention& attention = impl_->attention;
  attention.backward(
      context,
      check_backward(attention.sizes(), attention.trained_inputs(context, kScratchName),
                     impl_->state_dict, {outputs, inputs, parameters, mode}, kScratchName));
}

int64_t Scratch::embed_size() const { return impl_->attention.sizes().embed_dim; }
int64_t Scratch::num_heads() const { return impl_->attention.sizes().num_heads; }
HeadWidth Scratch::head_width() const { return impl_->width; }
DType Scratch::dtype() const { return impl_->attention.sizes().dtype; }

std::vector<std::pair<std::string, ConstTensorView>> Scratch::state_dict() const {
  return read_only(impl_->state_dict);
}

void Scratch::set_parameter(const std::string& name, const ConstTensorView& value) {
  assign_parameter(impl_->state_dict, name, value, kScratchName,
                   [this] { impl_->attention.repack(); });
}

ParameterViews Scratch::parameters() { return impl_->state_dict; }

void Scratch::repack() { impl_->attention.repack(); }

}  // namespace polyhead
