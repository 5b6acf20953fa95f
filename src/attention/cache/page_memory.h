// The memory that a cache's pages lie in.
#pragma once

#include <cstddef>
#include <memory>

#include "base/workspace.h"

namespace polyhead {

struct PageMemoryDelete {
  size_t alignment = kAlignment;
  void operator()(std::byte* memory) const {
    ::operator delete(memory, std::align_val_t(alignment));
  }
};
using PageMemory = std::unique_ptr<std::byte, PageMemoryDelete>;

// Contents unspecified, at least 64-byte aligned. Much of it lies in huge pages, where the system
// has them to give: a decoder's step reads all of a cache once, and the CPU asks for addresses and
// for what comes next by system pages. Throws std::bad_alloc.
PageMemory allocate_page_memory(size_t bytes);

}  // namespace polyhead
