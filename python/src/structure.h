// What a row sees by its position, and what changes its scores, as Python says it.
#pragma once

#include <nanobind/nanobind.h>
#include <polyhead/attention.h>

#include <array>
#include <optional>

#include "renames.h"

namespace polyhead::python {

// Undefined: not given.
struct StructureTensors {
  ConstTensorView sinks, alibi_slopes, key_lengths, query_segments, key_segments;
  ConstTensorView cu_seqlens_q, cu_seqlens_k;
};
inline constexpr size_t kStructureTensors = 7;

// How many keys on the left and on the right; none: all of them.
using Window = std::array<std::optional<int64_t>, 2>;
std::optional<Window> window_of(nanobind::handle given);  // throws nb::type_error

// What Python calls the op, and the masks that its refusals number.
Renames names_of(const AttentionOptions& options, const char* function);

class Structure {
 public:
  // A query_offset says where query 0 stands, which causal_align does otherwise. Throws
  // InvalidArgument.
  Structure(bool is_causal, const char* causal_align, const std::optional<Window>& window,
            std::optional<int64_t> query_offset);

  // In front of any other mask.
  void add_to(AttentionOptions* options, const StructureTensors& tensors) const;

 private:
  bool is_causal_;
  QueryOffset offset_;
  std::optional<Window> window_;
};

}  // namespace polyhead::python
