#include "attention/cache/page_memory.h"

#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace polyhead {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

// A wish: where it is refused, nothing is lost but time.
void ask_for_huge_pages([[maybe_unused]] std::byte* memory, [[maybe_unused]] size_t bytes) {
#ifdef __linux__
  static_cast<void>(madvise(memory, bytes / kHugePage * kHugePage, MADV_HUGEPAGE));
#endif
}

}  // namespace

PageMemory allocate_page_memory(size_t bytes) {
  const size_t alignment = bytes < kHugePage ? kAlignment : kHugePage;
  auto* memory = static_cast<std::byte*>(::operator new(bytes, std::align_val_t(alignment)));
  if (alignment == kHugePage) ask_for_huge_pages(memory, bytes);
  return {memory, {alignment}};
}

}  // namespace polyhead
