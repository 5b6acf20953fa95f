// torch's tensors as views, in place, by the table of functions that torch publishes for this
// (DLPack's exchange API): no Python runs, a tensor costs some tens of nanoseconds. polyhead.torch
// says where torch is, at import, before anything else of this file.
#pragma once

#include <nanobind/nanobind.h>
#include <polyhead/tensor_view.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace polyhead::python {

// None: a view that is not defined. The tensor keeps the memory. Throws nb::type_error for what is
// no dense torch tensor in the CPU's memory; `argument` opens the message.
TensorView tensor_view(nanobind::handle tensor, const char* argument);

// Whether each is None, or of exactly one of the types and dense in the CPU's memory, which holds
// its numbers: torch may put off a change of sign.
bool are_plain(const nanobind::tuple& tensors, const nanobind::tuple& types);

// The memory of some tensors, held, and how each lies in it. A write through .data, or to a
// storage's size, gives a tensor other memory behind the back of torch's count of writes.
class Places {
 public:
  explicit Places(const nanobind::tuple& tensors);
  // The number of the first tensor that lies elsewhere now; -1: none does.
  int first_moved(const nanobind::tuple& tensors) const;

 private:
  struct Place {
    nanobind::object storage;
    size_t bytes = 0;  // of the storage
    const void* data = nullptr;
    std::vector<int64_t> shape, strides;
    bool operator==(const Place& other) const;
  };
  static Place place_of(nanobind::handle tensor);

  std::vector<Place> places_;
};

}  // namespace polyhead::python
