#include <polyhead/tensor_view.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include <polyhead/error.h>
#include "base/checked_math.h"
#include "base/message.h"
#include "base/workspace.h"

namespace polyhead {

size_t dtype_bytes(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
    case DType::kInt64:
      return 8;
    case DType::kFloat32:
    case DType::kInt32:
      return 4;
    case DType::kFloat16:
    case DType::kBFloat16:
      return 2;
    case DType::kBool:
      return 1;
  }
  throw InvalidArgument(message("dtype: got ", static_cast<int>(dtype), "; need a DType"));
}

const char* dtype_name(DType dtype) {
  static constexpr const char* kNames[] = {"float32", "float64", "float16", "bfloat16",
                                           "bool",    "int32",   "int64"};
  dtype_bytes(dtype);  // throws on a value outside the enum
  return kNames[static_cast<size_t>(dtype)];
}

namespace {

std::string join(Shape shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i ? ", " : "") + std::to_string(shape[i]);
  }
  return text + "]";
}

// Product of the sizes; throws if it, or its bytes, does not fit.
int64_t checked_numel(Shape shape, DType dtype) {
  int64_t numel = 1, bytes = static_cast<int64_t>(dtype_bytes(dtype));
  bool empty = false;
  for (int64_t size : shape) {
    if (size < 0) {
      throw InvalidArgument(message("tensor: shape is ", join(shape), "; sizes must be >= 0"));
    }
    empty |= size == 0;
    const int64_t factor = std::max<int64_t>(size, 1);  // every partial product must fit
    if (!checked_multiply(numel, factor, &numel) || !checked_multiply(bytes, factor, &bytes)) {
      throw InvalidArgument(message("tensor: shape is ", join(shape),
                                    "; the sizes other than 0 make too many elements"));
    }
  }
  return empty ? 0 : numel;
}

}  // namespace

ConstTensorView::ConstTensorView(const void* data, DType dtype, Shape shape)
    : ConstTensorView(data, dtype, shape, shape) {
  int64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    strides_[i] = stride;
    stride *= std::max<int64_t>(shape[i], 1);
  }
}

ConstTensorView::ConstTensorView(const void* data, DType dtype, Shape shape, Shape strides)
    : data_(data), dtype_(dtype) {
  if (shape.size() > kMaxRank || shape.size() != strides.size()) {
    throw InvalidArgument(message("tensor: got ", shape.size(), " sizes and ", strides.size(),
                                  " strides; need as many of each, at most ", kMaxRank));
  }
  if (checked_numel(shape, dtype) > 0 && data == nullptr) {
    throw InvalidArgument(message("tensor: data is null with shape ", join(shape)));
  }
  rank_ = static_cast<int>(shape.size());
  std::copy(shape.begin(), shape.end(), shape_.begin());
  std::copy(strides.begin(), strides.end(), strides_.begin());
}

int64_t ConstTensorView::numel() const {
  if (!defined()) return 0;
  int64_t numel = 1;
  for (int64_t size : shape()) numel *= size;
  return numel;
}

bool ConstTensorView::is_contiguous() const {
  int64_t expected = 1;
  for (int i = rank(); i-- > 0;) {
    if (size(i) != 1 && stride(i) != expected) return numel() == 0;
    expected *= size(i);
  }
  return true;
}

std::string ConstTensorView::shape_string() const { return join(shape()); }

void ConstTensorView::require_dtype(DType wanted) const {
  if (dtype_ != wanted) {
    throw InvalidArgument(
        message("tensor: dtype is ", dtype_name(dtype_), "; asked for as ", dtype_name(wanted)));
  }
}

namespace {

size_t checked_dim(const ConstTensorView& view, int dim, int limit) {
  if (dim < 0 || dim >= limit) {
    throw InvalidArgument(message("tensor: dimension ", dim, " of shape ", view.shape_string()));
  }
  return static_cast<size_t>(dim);
}

}  // namespace

ConstTensorView ConstTensorView::transposed(int dim_a, int dim_b) const {
  ConstTensorView view = *this;
  const size_t a = checked_dim(*this, dim_a, rank()), b = checked_dim(*this, dim_b, rank());
  std::swap(view.shape_[a], view.shape_[b]);
  std::swap(view.strides_[a], view.strides_[b]);
  return view;
}

ConstTensorView ConstTensorView::narrow(int dim, int64_t start, int64_t length) const {
  ConstTensorView view = *this;
  const size_t d = checked_dim(*this, dim, rank());
  if (start < 0 || length < 0 || start > size(dim) || length > size(dim) - start) {
    throw InvalidArgument(message("tensor: [", start, ", ", start, " + ", length, ") of dimension ",
                                  dim, " of shape ", shape_string()));
  }
  const auto offset = start * stride(dim) * static_cast<int64_t>(dtype_bytes(dtype_));
  if (data_ != nullptr) view.data_ = static_cast<const std::byte*>(data_) + offset;
  view.shape_[d] = length;
  return view;
}

ConstTensorView ConstTensorView::select(int dim, int64_t index) const {
  ConstTensorView view = narrow(dim, index, 1);
  const auto d = static_cast<size_t>(dim);
  std::copy(view.shape_.begin() + d + 1, view.shape_.end(), view.shape_.begin() + d);
  std::copy(view.strides_.begin() + d + 1, view.strides_.end(), view.strides_.begin() + d);
  --view.rank_;
  return view;
}

ConstTensorView ConstTensorView::unsqueezed(int dim) const {
  if (!defined() || rank() == kMaxRank) {
    throw InvalidArgument(message("tensor: unsqueezed: got ",
                                  defined() ? shape_string() : "no tensor",
                                  "; need a tensor of rank below ", kMaxRank));
  }
  ConstTensorView view = *this;
  const size_t d = checked_dim(*this, dim, rank() + 1);
  std::copy_backward(shape_.begin() + d, shape_.end() - 1, view.shape_.end());
  std::copy_backward(strides_.begin() + d, strides_.end() - 1, view.strides_.end());
  view.shape_[d] = 1;
  view.strides_[d] = 0;
  ++view.rank_;
  return view;
}

TensorView TensorView::transposed(int dim_a, int dim_b) const {
  return TensorView(ConstTensorView::transposed(dim_a, dim_b));
}
TensorView TensorView::select(int dim, int64_t index) const {
  return TensorView(ConstTensorView::select(dim, index));
}
TensorView TensorView::narrow(int dim, int64_t start, int64_t length) const {
  return TensorView(ConstTensorView::narrow(dim, start, length));
}
TensorView TensorView::unsqueezed(int dim) const {
  return TensorView(ConstTensorView::unsqueezed(dim));
}

void Tensor::Free::operator()(std::byte* memory) const { AlignedDelete()(memory); }

Tensor::Tensor(DType dtype, Shape shape) {
  const auto numel = static_cast<size_t>(checked_numel(shape, dtype));
  const size_t bytes = std::max<size_t>(numel * dtype_bytes(dtype), 1);
  memory_.reset(allocate_aligned(bytes).release());
  std::memset(memory_.get(), 0, bytes);
  view_ = TensorView(memory_.get(), dtype, shape);
}

namespace {

// Row-major copy of `source` into `to`, dimension by dimension.
void copy_strided(const ConstTensorView& source, int dim, const std::byte* from, std::byte** to) {
  const size_t bytes = dtype_bytes(source.dtype());
  if (dim == source.rank()) {
    std::memcpy(*to, from, bytes);
    *to += bytes;
    return;
  }
  const int64_t step = source.stride(dim) * static_cast<int64_t>(bytes);
  for (int64_t i = 0; i < source.size(dim); ++i) copy_strided(source, dim + 1, from + i * step, to);
}

}  // namespace

Tensor::Tensor(ConstTensorView source)
    : Tensor(source.defined() ? Tensor(source.dtype(), source.shape()) : Tensor()) {
  if (!source.defined() || source.numel() == 0) return;
  const size_t bytes = static_cast<size_t>(source.numel()) * dtype_bytes(source.dtype());
  if (source.is_contiguous()) {
    std::memcpy(memory_.get(), source.data(), bytes);
  } else {
    std::byte* to = memory_.get();
    copy_strided(source, 0, static_cast<const std::byte*>(source.data()), &to);
  }
}

Tensor::Tensor(const Tensor& other) {
  if (other.defined()) *this = Tensor(ConstTensorView(other.view_));
}

Tensor::Tensor(Tensor&& other) noexcept
    : memory_(std::move(other.memory_)), view_(std::exchange(other.view_, TensorView())) {}

Tensor& Tensor::operator=(Tensor other) noexcept {
  std::swap(memory_, other.memory_);
  std::swap(view_, other.view_);
  return *this;
}

}  // namespace polyhead
