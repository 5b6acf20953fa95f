#include "module/training/gradient_views.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "base/float_type.h"

namespace polyhead {
namespace {

// Calls f(a's offset, b's offset) for each element of two views of one shape.
template <class F>
void for_each_pair(const ConstTensorView& a, const ConstTensorView& b, const F& f, int dim = 0,
                   int64_t at_a = 0, int64_t at_b = 0) {
  if (dim == a.rank()) return f(at_a, at_b);
  for (int64_t i = 0; i < a.size(dim); ++i) {
    for_each_pair(a, b, f, dim + 1, at_a + i * a.stride(dim), at_b + i * b.stride(dim));
  }
}

// Row n of [batch, len, columns].
template <class T, class View>
T* row_of(const View& view, int64_t n) {
  return static_cast<T*>(view.data()) + n / view.size(1) * view.stride(0) +
         n % view.size(1) * view.stride(1);
}

template <class T>
bool row_is_zero(const ConstTensorView& view, int64_t n) {
  const auto* row = row_of<const T>(view, n);
  for (int64_t c = 0; c < view.size(2); ++c) {
    if (row[c * view.stride(2)] != 0) return false;
  }
  return true;
}

// Without a branch, so that it is vectorised.
template <class T>
bool row_is_finite(const T* row, int64_t step, int64_t count) {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  constexpr Bits kExponent = sizeof(T) == 4 ? Bits{0x7f800000} : Bits(0x7ff0000000000000);
  Bits found = 0;
  for (int64_t i = 0; i < count; ++i) {
    Bits bits;
    std::memcpy(&bits, row + i * step, sizeof bits);
    found |= static_cast<Bits>((bits & kExponent) == kExponent);
  }
  return found == 0;
}

}  // namespace

void set_zero(const TensorView& view) {
  if (!view.defined()) return;
  with_float_type(view.dtype(), [&](auto zero) {
    auto* to = view.data_as<decltype(zero)>();
    for_each_pair(view, view, [&](int64_t at, int64_t) { to[at] = 0; });
  });
}

void add_elements(const ConstTensorView& from, const TensorView& to) {
  with_float_type(to.dtype(), [&](auto type) {
    const auto* a = from.data_as<decltype(type)>();
    auto* b = to.data_as<decltype(type)>();
    for_each_pair(from, to, [&](int64_t at_a, int64_t at_b) { b[at_b] += a[at_a]; });
  });
}

void copy_elements(const ConstTensorView& from, const TensorView& to) {
  with_float_type(to.dtype(), [&](auto type) {
    const auto* a = from.data_as<decltype(type)>();
    auto* b = to.data_as<decltype(type)>();
    for_each_pair(from, to, [&](int64_t at_a, int64_t at_b) { b[at_b] = a[at_a]; });
  });
}

bool adjoin(const TensorView& a, const TensorView& b) {
  if (!a.defined() || !b.defined()) return a.defined() == b.defined();
  const auto bytes = a.size(0) * a.stride(0) * static_cast<int64_t>(dtype_bytes(a.dtype()));
  return static_cast<const std::byte*>(a.data()) + bytes == b.data() &&
         std::ranges::equal(a.shape(), b.shape()) && std::ranges::equal(a.strides(), b.strides());
}

TensorView adjoined(const TensorView& first, int count) {
  if (!first.defined()) return first;
  std::array<int64_t, kMaxRank> shape{};
  std::ranges::copy(first.shape(), shape.begin());
  shape[0] *= count;
  const auto rank = static_cast<size_t>(first.rank());
  return {first.data(), first.dtype(), Shape(shape.data(), rank), first.strides()};
}

bool all_finite(const ConstTensorView& x) {
  bool finite = true;
  with_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    for (int64_t n = 0; finite && n < x.size(0) * x.size(1); ++n) {
      finite = row_is_finite(row_of<const T>(x, n), x.stride(2), x.size(2));
    }
  });
  return finite;
}

void copy_used_rows(const ConstTensorView& x, const ConstTensorView& d_y, const TensorView& to) {
  with_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    for (int64_t n = 0; n < x.size(0) * x.size(1); ++n) {
      const bool used = !row_is_zero<T>(d_y, n);
      const auto* from = row_of<const T>(x, n);
      T* row = row_of<T>(to, n);
      for (int64_t i = 0; i < x.size(2); ++i) {
        row[i * to.stride(2)] = used ? from[i * x.stride(2)] : T{0};
      }
    }
  });
}

}  // namespace polyhead
