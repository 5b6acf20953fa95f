// Scratch memory of one thread: grows, never shrinks, so that a shape seen before allocates
// nothing.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <new>
#include <utility>

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
  Workspace() = default;
  Workspace(Workspace&& other) noexcept
      : memory_(std::move(other.memory_)), capacity_(std::exchange(other.capacity_, 0)) {}
  Workspace& operator=(Workspace&& other) noexcept {
    memory_ = std::move(other.memory_);
    capacity_ = std::exchange(other.capacity_, 0);
    return *this;
  }

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

// A workspace of the calling thread's, taken off its stack for as long as it is used: whoever
// borrows on the same thread meanwhile (the next layer down, or another call that a lent executor
// runs there while this one waits) gets another one. In the same nesting, the same one comes back.
class WorkspaceLease {
 public:
  WorkspaceLease() {
    if (Free& free = free_of_thread(); free.count > 0) {
      workspace_ = std::move(free.workspaces[--free.count]);
    }
  }
  ~WorkspaceLease() {
    Free& free = free_of_thread();
    if (free.count < free.workspaces.size()) {
      free.workspaces[free.count++] = std::move(workspace_);
    }
  }
  WorkspaceLease(const WorkspaceLease&) = delete;
  WorkspaceLease& operator=(const WorkspaceLease&) = delete;

  std::byte* reserve(size_t bytes) { return workspace_.reserve(bytes); }

 private:
  struct Free {
    std::array<Workspace, 4> workspaces;
    size_t count = 0;
  };
  static Free& free_of_thread() {
    static thread_local Free free;
    return free;
  }

  Workspace workspace_;
};

}  // namespace polyhead
