// What Python asks of the op besides its operands.
#pragma once

#include <nanobind/nanobind.h>
#include <polyhead/attention.h>

#include <array>
#include <memory>
#include <optional>
#include <string>

#include "arrays.h"
#include "score_mod.h"
#include "structure.h"

namespace polyhead::python {

// sinks, alibi_slopes, key_lengths, segments of the queries and of the keys, cu_seqlens of both
using StructureArrays = std::array<nb::object, kStructureTensors>;

// Keeps the memory of what it was given.
class Options {
 public:
  // `function`, Python's name of it, opens messages. attn_mask, arrays and score_mod (as a
  // ScoreFunction takes it) may be None. Throws InvalidArgument, nb::type_error.
  Options(const char* function, nb::handle attn_mask, const AttentionOptions& base,
          const Structure& structure, const std::optional<StructureArrays>& arrays,
          nb::object score_mod);

  const std::string& function() const { return function_; }
  const ConstTensorView& mask() const { return mask_.view; }
  WeightsMode weights() const { return base_.weights; }
  // Whether something is given that may say another thing for each batch item.
  bool tells_items_apart() const;

  // For a part of the call: its part of the mask, and a number that makes its dropout its own.
  AttentionOptions of_part(const ConstTensorView& mask, uint32_t part) const;
  // After the call, with the GIL: throws what score_mod raised.
  void rethrow() const;

 private:
  std::string titled(const char* argument) const { return function_ + ": " + argument; }

  std::string function_;
  Input mask_;
  AttentionOptions base_;
  Structure structure_;
  std::array<Input, kStructureTensors> arrays_;
  std::unique_ptr<ScoreFunction> score_mod_;
};

void bind_op_options(nb::module_& module);

}  // namespace polyhead::python
