// nn.MultiheadAttention whose parameters are torch's tensors. The library computes on packed copies
// of them, which follow the tensors.
#pragma once

#include <nanobind/nanobind.h>
#include <polyhead/multihead_attention.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kv_cache.h"

namespace polyhead::python {

namespace nb = nanobind;

// What a forward of training leaves: its module as it then was, and what backward reads. The
// tensors of the call must live and stay as they are until then.
class TrainedCall {
 public:
  explicit TrainedCall(std::shared_ptr<const MultiheadAttention> module)
      : module_(std::move(module)) {}

  const MultiheadAttention& module() const { return *module_; }
  TrainingContext* context() { return &context_; }

  // d_outputs: (d_out, d_weights); d_inputs: of the call's inputs;
  // d_parameters as the state dict. None: not wanted.
  void backward(const std::array<nb::handle, 2>& d_outputs,
                const std::array<nb::handle, 5>& d_inputs, const nb::tuple& d_parameters) const;

 private:
  std::shared_ptr<const MultiheadAttention> module_;
  TrainingContext context_;
};

// The numbers of the parameters at one time: whatever other threads pack, these stay.
class PackedModule {
 public:
  explicit PackedModule(std::shared_ptr<const MultiheadAttention> module)
      : module_(std::move(module)) {}

  // inputs: query, key, value, key_padding_mask, attn_mask; outputs: (out, weights).
  void forward(const std::array<nb::handle, 5>& inputs, const std::array<nb::handle, 2>& outputs,
               ForwardOptions options) const;
  // The same, for training; dropout_p in place of the module's.
  std::unique_ptr<TrainedCall> forward_training(const std::array<nb::handle, 5>& inputs,
                                                const std::array<nb::handle, 2>& outputs,
                                                ForwardOptions options,
                                                const DropoutDraw& dropout) const;

  // The next tokens of a decoder; outside of autograd.
  void forward_cached(nb::handle query, SharedCache& cache, nb::handle lengths, int64_t sequence,
                      nb::handle out) const;

 private:
  std::shared_ptr<const MultiheadAttention> module_;
};

class TorchModule {
 public:
  TorchModule(const MultiheadAttention::Config& config, nb::object parameter_type)
      : config_(config), parameter_type_(std::move(parameter_type)) {}

  // Packs `parameters`, in the state dict's order.
  PackedModule pack(const nb::tuple& parameters);
  // The same, unless they are those of the last time. A write is noticed by torch's count of them;
  // one that torch does not count (through .data, or from numpy) by some of the numbers. None, and
  // nothing done, if one is not exactly of torch's type for them or of another dtype.
  std::optional<PackedModule> follow(const nb::tuple& parameters);

 private:
  // What a parameter was when it was packed.
  struct Seen {
    const void* data = nullptr;
    int64_t version = 0;
    uint64_t sample = 0;
    bool operator==(const Seen&) const = default;
  };
  static Seen look_at(nb::handle parameter, const ConstTensorView& view);
  // Whether the packed numbers are these, as far as it can be known in a few microseconds.
  bool is_packed(const std::vector<ConstTensorView>& views) const;
  void copy_and_pack(const std::vector<ConstTensorView>& views);

  MultiheadAttention::Config config_;
  nb::object parameter_type_;
  std::shared_ptr<MultiheadAttention> packed_;  // replaced, not changed, while another holds it
  ParameterViews own_;                          // of packed_
  std::vector<Seen> seen_;
};

}  // namespace polyhead::python
