// Memory that catches who reads or writes outside it.
//
// The last element of a GuardedTensor ends exactly at a page that may not be touched (so the first
// is aligned no better than an element); everything else around and between the elements is
// painted, and intact() says whether the paint is unharmed.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include <polyhead/tensor_view.h>

namespace polyhead::oracle {

// How a [.., .., len, dim] tensor lies in memory.
enum class Storage {
  kContiguous,  // row-major
  kHeadsInner,  // the middle two dimensions swapped, as in [B, L, H, D]
  kGaps,        // kHeadsInner with unused elements after every row
  kReversed,    // the second last dimension runs backwards: a negative stride
  kColumns,     // the last two dimensions swapped: the last one strided
};
inline constexpr Storage kStorages[] = {Storage::kContiguous, Storage::kHeadsInner, Storage::kGaps,
                                        Storage::kReversed, Storage::kColumns};

class GuardedTensor {
 public:
  GuardedTensor() = default;
  // float32 or float64 elements start as NaN, bools as false, integers as 0.
  GuardedTensor(DType dtype, Shape shape, Storage storage = Storage::kContiguous);
  GuardedTensor(DType dtype, std::initializer_list<int64_t> shape,
                Storage storage = Storage::kContiguous)
      : GuardedTensor(dtype, Shape(shape.begin(), shape.size()), storage) {}

  const TensorView& view() const { return view_; }
  bool defined() const { return view_.defined(); }
  bool intact() const;  // nothing but elements has been written
  void protect();       // from here on, writing to it faults

 private:
  struct Unmap {
    size_t bytes;
    void operator()(std::byte* region) const;
  };
  std::vector<bool> element_bytes() const;

  std::unique_ptr<std::byte, Unmap> region_{nullptr, Unmap{0}};
  size_t usable_ = 0;  // bytes before the guard page
  TensorView view_;
};

}  // namespace polyhead::oracle
