// The module layer's checks: each failure reads `function: argument: got; must be need`.
#pragma once

#include <algorithm>
#include <string>

#include <polyhead/error.h>
#include <polyhead/tensor_view.h>
#include "base/message.h"

namespace polyhead {

inline std::string shape_text(Shape shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

// Builds no string unless it fails: forward must not allocate.
class Require {
 public:
  explicit Require(const char* function) : function_(function) {}

  [[noreturn]] void fail(const std::string& argument, const std::string& got,
                         const std::string& need) const {
    throw InvalidArgument(message(function_, ": ", argument, ": ", got, "; must be ", need));
  }

  void given(const ConstTensorView& view, const char* name) const {
    if (!view.defined()) fail(name, "not given", "a tensor");
  }

  // `letters` names the sizes: "[B, S]".
  void shape(const ConstTensorView& view, const char* name, Shape need,
             const char* letters = nullptr) const {
    if (std::ranges::equal(view.shape(), need)) return;
    fail(name, "shape is " + view.shape_string(),
         letters ? message(shape_text(need), " (", letters, ")") : shape_text(need));
  }

  void dtype(const ConstTensorView& view, const char* name, DType dtype) const {
    if (view.dtype() == dtype) return;
    fail(name, message("dtype is ", dtype_name(view.dtype())),
         message(dtype_name(dtype), ", the module's"));
  }

 private:
  const char* function_;
};

inline void require_dtype(const Require& require, const ConstTensorView& view, const char* name,
                          DType dtype) {
  if (view.dtype() == dtype) return;
  require.fail(name, message("dtype is ", dtype_name(view.dtype())), dtype_name(dtype));
}

}  // namespace polyhead
