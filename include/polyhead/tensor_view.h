// Tensors: non-owning strided views, and one owning row-major container.
//
//   std::vector<float> x(2 * 5 * 64);
//   ConstTensorView view(x.data(), {2, 5, 64});           // dtype from the pointer, row-major
//   view.transposed(0, 1).size(0) == 5;                   // no copy
//   Tensor out(DType::kFloat32, {2, 5, 64});              // zero-filled, 64-byte aligned
//
// Sizes and strides count elements. A view allocates nothing and never outlives its data.
#pragma once

#if __cplusplus < 202002L
#error "polyhead needs C++20: compile with -std=c++20 or newer"
#endif

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>

#pragma GCC visibility push(default)
namespace polyhead {

enum class DType : int32_t { kFloat32, kFloat64, kFloat16, kBFloat16, kBool, kInt32, kInt64 };

size_t dtype_bytes(DType dtype);
const char* dtype_name(DType dtype);  // "float32", "bool", ... as in numpy

template <class T>
constexpr DType dtype_of();
template <>
constexpr DType dtype_of<float>() {
  return DType::kFloat32;
}
template <>
constexpr DType dtype_of<double>() {
  return DType::kFloat64;
}
template <>
constexpr DType dtype_of<bool>() {
  return DType::kBool;
}
template <>
constexpr DType dtype_of<int32_t>() {
  return DType::kInt32;
}
template <>
constexpr DType dtype_of<int64_t>() {
  return DType::kInt64;
}

inline constexpr int kMaxRank = 8;
using Shape = std::span<const int64_t>;

// A read-only view. Default-constructed it is "not given": defined() is false.
// Throws InvalidArgument on rank > kMaxRank, a negative size, null data with elements, or sizes
// whose product does not fit in int64_t.
class ConstTensorView {
 public:
  ConstTensorView() = default;
  ConstTensorView(const void* data, DType dtype, Shape shape);                 // row-major
  ConstTensorView(const void* data, DType dtype, Shape shape, Shape strides);  // any strides
  template <class T>
  ConstTensorView(const T* data, std::initializer_list<int64_t> shape)
      : ConstTensorView(data, dtype_of<T>(), Shape(shape.begin(), shape.size())) {}

  bool defined() const { return rank_ >= 0; }
  int rank() const { return rank_ < 0 ? 0 : rank_; }
  DType dtype() const { return dtype_; }
  int64_t size(int dim) const { return shape_[static_cast<size_t>(dim)]; }
  int64_t stride(int dim) const { return strides_[static_cast<size_t>(dim)]; }
  Shape shape() const { return {shape_.data(), static_cast<size_t>(rank())}; }
  Shape strides() const { return {strides_.data(), static_cast<size_t>(rank())}; }
  int64_t numel() const;             // 0 if not defined
  bool is_contiguous() const;        // row-major without gaps
  std::string shape_string() const;  // "[2, 5, 64]"

  const void* data() const { return data_; }
  template <class T>
  const T* data_as() const {  // throws InvalidArgument if T is not the dtype
    require_dtype(dtype_of<T>());
    return static_cast<const T*>(data_);
  }

  // Views of the same memory.
  ConstTensorView transposed(int dim_a, int dim_b) const;
  ConstTensorView select(int dim, int64_t index) const;  // drops the dimension
  ConstTensorView narrow(int dim, int64_t start, int64_t length) const;
  ConstTensorView unsqueezed(int dim) const;  // inserts a size of 1

 protected:
  void require_dtype(DType wanted) const;

  const void* data_ = nullptr;
  DType dtype_ = DType::kFloat32;
  int rank_ = -1;
  std::array<int64_t, kMaxRank> shape_{};
  std::array<int64_t, kMaxRank> strides_{};
};

// The same, writable.
class TensorView : public ConstTensorView {
 public:
  TensorView() = default;
  TensorView(void* data, DType dtype, Shape shape) : ConstTensorView(data, dtype, shape) {}
  TensorView(void* data, DType dtype, Shape shape, Shape strides)
      : ConstTensorView(data, dtype, shape, strides) {}
  template <class T>
  TensorView(T* data, std::initializer_list<int64_t> shape) : ConstTensorView(data, shape) {}

  void* data() const { return const_cast<void*>(data_); }
  template <class T>
  T* data_as() const {
    return const_cast<T*>(ConstTensorView::data_as<T>());
  }
  TensorView transposed(int dim_a, int dim_b) const;
  TensorView select(int dim, int64_t index) const;
  TensorView narrow(int dim, int64_t start, int64_t length) const;
  TensorView unsqueezed(int dim) const;

 private:
  explicit TensorView(const ConstTensorView& view) : ConstTensorView(view) {}
};

// Owns its memory: row-major, 64-byte aligned, zero-filled at construction. Copies are deep.
class Tensor {
 public:
  Tensor() = default;  // not defined
  Tensor(DType dtype, Shape shape);
  Tensor(DType dtype, std::initializer_list<int64_t> shape)
      : Tensor(dtype, Shape(shape.begin(), shape.size())) {}
  explicit Tensor(ConstTensorView source);  // a row-major copy; of nothing, nothing
  Tensor(const Tensor& other);
  Tensor(Tensor&& other) noexcept;
  Tensor& operator=(Tensor other) noexcept;
  ~Tensor() = default;

  TensorView view() { return view_; }
  ConstTensorView view() const { return view_; }
  // A template, so that a conversion to ConstTensorView never has two candidates.
  template <std::same_as<TensorView> View>
  operator View() {  // NOLINT(google-explicit-constructor)
    return view_;
  }
  operator ConstTensorView() const { return view_; }  // NOLINT(google-explicit-constructor)

  bool defined() const { return view_.defined(); }
  int rank() const { return view_.rank(); }
  DType dtype() const { return view_.dtype(); }
  int64_t size(int dim) const { return view_.size(dim); }
  Shape shape() const { return view_.shape(); }
  int64_t numel() const { return view_.numel(); }
  std::string shape_string() const { return view_.shape_string(); }
  void* data() { return view_.data(); }
  const void* data() const { return view_.data(); }
  template <class T>
  T* data_as() {
    return view_.data_as<T>();
  }
  template <class T>
  const T* data_as() const {
    return view_.data_as<T>();
  }

 private:
  struct Free {
    void operator()(std::byte* memory) const;
  };
  std::unique_ptr<std::byte, Free> memory_;
  TensorView view_;
};

}  // namespace polyhead
#pragma GCC visibility pop
