// Scratch memory of one thread: grows, never shrinks, so that a shape seen before allocates
// nothing.
#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace polyhead {

inline constexpr size_t kAlignment = 64;  // a cache line, and the widest vector

struct AlignedDelete {
  void operator()(std::byte* memory) const {
    ::operator delete(memory, std::align_val_t(kAlignment));
  }
};
using AlignedBytes = std::unique_ptr<std::byte, AlignedDelete>;

inline AlignedBytes allocate_aligned(size_t bytes) {
  return AlignedBytes(static_cast<std::byte*>(::operator new(bytes, std::align_val_t(kAlignment))));
}

class Workspace {
 public:
  // At least `bytes` of memory, 64-byte aligned, contents unspecified. Throws std::bad_alloc.
  std::byte* reserve(size_t bytes) {
    if (bytes > capacity_) {
      memory_.reset();
      capacity_ = 0;
      memory_ = allocate_aligned(bytes);
      capacity_ = bytes;
    }
    return memory_.get();
  }

 private:
  AlignedBytes memory_;
  size_t capacity_ = 0;
};

}  // namespace polyhead
