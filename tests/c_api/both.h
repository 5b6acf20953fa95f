// Tensors that tests hand to both sides of the C ABI.
#pragma once

#include <utility>

#include <polyhead/c_api.h>
#include <polyhead/polyhead.h>

namespace polyhead::oracle {

inline polyhead_tensor c_tensor(const ConstTensorView& view) {
  return {const_cast<void*>(view.data()), static_cast<int32_t>(view.dtype()), view.rank(),
          view.shape().data(), view.strides().data()};
}

// A tensor and how C sees it; the view holds the shape that the struct points to.
struct Both {
  explicit Both(Tensor from) : tensor(std::move(from)), view(tensor.view()), c(c_tensor(view)) {}
  Both(const Both&) = delete;
  Both& operator=(const Both&) = delete;

  Tensor tensor;
  ConstTensorView view;
  polyhead_tensor c;
};

template <class Options>
Options sized() {
  Options options{};
  options.struct_size = sizeof options;
  return options;
}

inline const char* ok(polyhead_status status) {
  return status == POLYHEAD_OK ? "ok" : polyhead_last_error();
}

}  // namespace polyhead::oracle
