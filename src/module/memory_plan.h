// Where the tensors of one call lie in one block of memory, before there is any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include <polyhead/tensor_view.h>
#include "base/checked_math.h"
#include "base/workspace.h"
#include "module/require.h"

namespace polyhead {

class MemoryPlan {
 public:
  explicit MemoryPlan(DType dtype) : dtype_(dtype) {}

  // Room for a tensor; gives its place, in bytes from the start of the block. Throws
  // InvalidArgument if the bytes cannot be counted.
  int64_t add(std::initializer_list<int64_t> shape) {
    auto bytes = static_cast<int64_t>(dtype_bytes(dtype_));
    bool fits = true;
    for (const int64_t size : shape) fits = fits && checked_multiply(bytes, size, &bytes);
    const int64_t place = bytes_;
    constexpr auto kLine = static_cast<int64_t>(kAlignment);
    if (!fits || !checked_add(bytes, place + kLine, &bytes)) {
      throw InvalidArgument(message("attention module: ", shape_text({shape.begin(), shape.size()}),
                                    " for what is computed; too many elements"));
    }
    bytes_ = bytes / kLine * kLine;
    return place;
  }

  size_t bytes() const { return static_cast<size_t>(bytes_); }

 private:
  DType dtype_;
  int64_t bytes_ = 0;
};

}  // namespace polyhead
