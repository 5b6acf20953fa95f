#include "testing/guarded.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <limits>
#include <new>
#include <numeric>

#include "base/checked_math.h"
#include "testing/elements.h"

namespace polyhead::oracle {
namespace {

constexpr std::byte kPaint{0xa5};

struct Layout {
  std::array<int64_t, kMaxRank> strides{};
  int64_t first = 0;  // offset of element [0, 0, ...] in elements
  int64_t total = 0;  // elements from the lowest to the highest
};

// Dimensions from the slowest to the fastest.
std::vector<int> order_of(int rank, Storage storage) {
  std::vector<int> order(static_cast<size_t>(rank));
  std::iota(order.begin(), order.end(), 0);
  const auto last = static_cast<size_t>(rank) - 1;
  const bool inner = storage == Storage::kHeadsInner || storage == Storage::kGaps;
  if (inner && rank >= 3) std::swap(order[last - 1], order[last - 2]);
  if (storage == Storage::kColumns && rank >= 2) std::swap(order[last], order[last - 1]);
  return order;
}

Layout layout_of(Shape shape, Storage storage) {
  Layout layout;
  const std::vector<int> order = order_of(static_cast<int>(shape.size()), storage);
  int64_t step = 1;
  for (size_t n = order.size(); n-- > 0;) {
    const auto dim = static_cast<size_t>(order[n]);
    layout.strides[dim] = step;
    layout.total += (std::max<int64_t>(shape[dim], 1) - 1) * step;
    step *= std::max<int64_t>(shape[dim], 1);
    if (storage == Storage::kGaps && n + 1 == order.size()) step += 3;
  }
  layout.total += 1;
  if (storage == Storage::kReversed && shape.size() >= 2) {
    const size_t dim = shape.size() - 2;
    layout.first = (std::max<int64_t>(shape[dim], 1) - 1) * layout.strides[dim];
    layout.strides[dim] = -layout.strides[dim];
  }
  return layout;
}

void initialise(const TensorView& view) {
  const auto bytes = static_cast<int64_t>(dtype_bytes(view.dtype()));
  const bool real = view.dtype() == DType::kFloat32 || view.dtype() == DType::kFloat64;
  if (real) return fill(view, std::numeric_limits<double>::quiet_NaN());
  for_each_index(view.shape(), [&](const Index& index) {
    std::memset(static_cast<std::byte*>(view.data()) + offset_of(view, index) * bytes, 0,
                static_cast<size_t>(bytes));
  });
}

}  // namespace

void GuardedTensor::Unmap::operator()(std::byte* region) const { munmap(region, bytes); }

GuardedTensor::GuardedTensor(DType dtype, Shape shape, Storage storage) {
  const Layout layout = layout_of(shape, storage);
  const bool empty = std::ranges::count(shape, 0) > 0;
  const size_t bytes = empty ? 0 : static_cast<size_t>(layout.total) * dtype_bytes(dtype);
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  usable_ = round_up(bytes + 64, page);
  void* region =
      mmap(nullptr, usable_ + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (region == MAP_FAILED) throw std::bad_alloc();
  region_ = {static_cast<std::byte*>(region), Unmap{usable_ + page}};
  mprotect(region_.get() + usable_, page, PROT_NONE);
  std::memset(region_.get(), static_cast<int>(kPaint), usable_);
  std::byte* const first = region_.get() + usable_ - bytes;
  view_ = TensorView(first + layout.first * static_cast<int64_t>(dtype_bytes(dtype)), dtype, shape,
                     Shape(layout.strides.data(), shape.size()));
  initialise(view_);
}

std::vector<bool> GuardedTensor::element_bytes() const {
  std::vector<bool> taken(usable_);
  const size_t bytes = dtype_bytes(view_.dtype());
  const auto base = static_cast<const std::byte*>(view_.data()) - region_.get();
  for_each_index(view_.shape(), [&](const Index& index) {
    const auto at = base + offset_of(view_, index) * static_cast<int64_t>(bytes);
    std::fill_n(taken.begin() + at, bytes, true);
  });
  return taken;
}

bool GuardedTensor::intact() const {
  if (!region_) return true;
  const std::vector<bool> taken = element_bytes();
  for (size_t n = 0; n < usable_; ++n) {
    if (!taken[n] && region_.get()[n] != kPaint) return false;
  }
  return true;
}

void GuardedTensor::protect() {
  if (region_) mprotect(region_.get(), usable_, PROT_READ);
}

}  // namespace polyhead::oracle
