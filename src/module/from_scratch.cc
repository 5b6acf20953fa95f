#include <utility>

#include <polyhead/multihead_attention.h>
#include "base/checked_math.h"
#include "module/forward_inputs.h"
#include "module/initialise.h"
#include "module/module_files.h"
#include "module/require.h"

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
          .head_dim = full ? embed_size : embed_size / num_heads,
          .kdim = embed_size,
          .vdim = embed_size,
          .dtype = dtype};
}

}  // namespace

struct FromScratchMultiHeadAttention::Impl {
  Impl(const AttentionSizes& sizes, HeadWidth head_width)
      : width(head_width), attention(sizes, make_parameters(sizes, /*bias=*/true)) {}

  HeadWidth width;
  ProjectedAttention attention;
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
  fill_parameters(scratch_state_dict(impl->attention.parameters()), file.tensors, kScratchName);
  impl->attention.repack();
  return Scratch(std::move(impl));
}

void Scratch::save(const std::string& path, const std::string& prefix) const {
  save_module(path, prefix, state_dict(), num_heads());
}

Tensor Scratch::forward(const ConstTensorView& q, const ConstTensorView& k,
                        const ConstTensorView& v, const ConstTensorView& mask) const {
  const ForwardInputs inputs = check_scratch_inputs(impl_->attention.sizes(), q, k, v, mask);
  Tensor out(dtype(), out_shape(inputs, impl_->attention.sizes()));
  forward_into(q, k, v, mask, out);
  return out;
}

void Scratch::forward_into(const ConstTensorView& q, const ConstTensorView& k,
                           const ConstTensorView& v, const ConstTensorView& mask,
                           const TensorView& out, const TensorView& weights) const {
  const AttentionSizes& sizes = impl_->attention.sizes();
  const ForwardInputs inputs = check_scratch_inputs(sizes, q, k, v, mask);
  WeightsMode mode = WeightsMode::kNone;
  if (weights.defined()) {
    mode = weights.rank() == 4 ? WeightsMode::kPerHead : WeightsMode::kAverage;
  }
  impl_->attention.run(complete_call(inputs, sizes, mode, out, weights, kScratchName));
}

int64_t Scratch::embed_size() const { return impl_->attention.sizes().embed_dim; }
int64_t Scratch::num_heads() const { return impl_->attention.sizes().num_heads; }
HeadWidth Scratch::head_width() const { return impl_->width; }
DType Scratch::dtype() const { return impl_->attention.sizes().dtype; }

std::vector<std::pair<std::string, ConstTensorView>> Scratch::state_dict() const {
  return read_only(scratch_state_dict(impl_->attention.parameters()));
}

void Scratch::set_parameter(const std::string& name, const ConstTensorView& value) {
  assign_parameter(scratch_state_dict(impl_->attention.parameters()), name, value, kScratchName,
                   [this] { impl_->attention.repack(); });
}

}  // namespace polyhead
