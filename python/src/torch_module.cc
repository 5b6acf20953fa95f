#include "torch_module.h"

#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/unique_ptr.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <optional>

#include "arrays.h"
#include "bind.h"
#include "rope.h"
#include "tensors.h"
#include "words.h"

namespace polyhead::python {
namespace {

// Where the element is that is number `index` in row-major order.
int64_t offset_of(const ConstTensorView& view, int64_t index) {
  int64_t offset = 0;
  for (int dim = view.rank() - 1; dim >= 0; --dim) {
    offset += index % view.size(dim) * view.stride(dim);
    index /= view.size(dim);
  }
  return offset;
}

// A number that other elements of `view` would give with all likelihood.
uint64_t sample_of(const ConstTensorView& view) {
  constexpr int64_t kElements = 16;
  constexpr uint64_t kPrime = 1099511628211;  // of the hash FNV-1a
  uint64_t hash = 0;
  const int64_t last = view.numel() - 1;
  const size_t bytes = dtype_bytes(view.dtype());
  const bool in_order = view.is_contiguous();
  for (int64_t i = 0; i < kElements && last >= 0; ++i) {
    const int64_t index = last * i / (kElements - 1);
    const int64_t offset = in_order ? index : offset_of(view, index);
    uint64_t bits = 0;
    std::memcpy(&bits, static_cast<const std::byte*>(view.data()) + offset * ptrdiff_t(bytes),
                bytes);
    hash = (hash ^ bits) * kPrime;
  }
  return hash;
}

// Parameters of at most so many bytes are compared whole: some microseconds.
constexpr int64_t kComparedBytes = 160 * 1024;

int64_t bytes_of(const ConstTensorView& view) {
  return view.numel() * static_cast<int64_t>(dtype_bytes(view.dtype()));
}

bool same_numbers(const ConstTensorView& a, const ConstTensorView& row_major) {
  const auto bytes = static_cast<size_t>(bytes_of(row_major));
  return bytes == 0 || (a.is_contiguous() && std::memcmp(a.data(), row_major.data(), bytes) == 0);
}

void copy(const ConstTensorView& from, const TensorView& to) {
  const auto bytes = static_cast<size_t>(bytes_of(to));
  if (bytes == 0) return;
  if (from.is_contiguous()) {
    std::memcpy(to.data(), from.data(), bytes);
  } else {
    std::memcpy(to.data(), Tensor(from).data(), bytes);
  }
}

// torch's count of writes; one that was made under inference_mode has none.
int64_t version_of(nb::handle parameter) {
  PyObject* const version = PyObject_GetAttrString(parameter.ptr(), "_version");
  if (version == nullptr) {
    PyErr_Clear();
    return -1;
  }
  return nb::cast<int64_t>(nb::steal(version));
}

// The views of a call.
struct Call {
  ConstTensorView query, key, value;
  ForwardOutputs outputs;
};

Call call_of(const std::array<nb::handle, 5>& inputs, const std::array<nb::handle, 2>& outputs,
             ForwardOptions* options) {
  options->key_padding_mask = tensor_view(inputs[3], "key_padding_mask");
  options->attn_mask = tensor_view(inputs[4], "attn_mask");
  return {tensor_view(inputs[0], "query"),
          tensor_view(inputs[1], "key"),
          tensor_view(inputs[2], "value"),
          {tensor_view(outputs[0], "out"), tensor_view(outputs[1], "weights")}};
}

}  // namespace

TorchModule::Seen TorchModule::look_at(nb::handle parameter, const ConstTensorView& view) {
  return {view.data(), version_of(parameter), sample_of(view)};
}

PackedModule TorchModule::pack(const nb::tuple& parameters) {
  std::vector<ConstTensorView> views;
  for (const nb::handle parameter : parameters)
    views.push_back(tensor_view(parameter, "parameter"));
  seen_.clear();
  copy_and_pack(views);
  return PackedModule(packed_);
}

std::optional<PackedModule> TorchModule::follow(const nb::tuple& parameters) {
  std::vector<ConstTensorView> views;
  std::vector<Seen> now;
  views.reserve(parameters.size());
  now.reserve(parameters.size());
  for (const nb::handle parameter : parameters) {
    if (!parameter.type().is(parameter_type_)) return std::nullopt;
    views.push_back(tensor_view(parameter, "parameter"));
    if (views.back().dtype() != config_.dtype) return std::nullopt;
    now.push_back(look_at(parameter, views.back()));
  }
  if (packed_ && now == seen_ && is_packed(views)) return PackedModule(packed_);
  seen_.clear();
  copy_and_pack(views);
  seen_ = std::move(now);
  return PackedModule(packed_);
}

bool TorchModule::is_packed(const std::vector<ConstTensorView>& views) const {
  int64_t bytes = 0;
  for (const ConstTensorView& view : views) bytes += bytes_of(view);
  if (bytes > kComparedBytes) return true;
  for (size_t i = 0; i < views.size(); ++i) {
    if (!same_numbers(views[i], own_[i].second)) return false;
  }
  return true;
}

void TorchModule::copy_and_pack(const std::vector<ConstTensorView>& views) {
  if (!packed_ || packed_.use_count() > 1) {
    packed_ = std::make_shared<MultiheadAttention>(config_);
    own_ = packed_->parameters();
  }
  for (size_t i = 0; i < own_.size(); ++i) {
    const auto& [name, to] = own_[i];
    const bool fits = i < views.size() && std::ranges::equal(views[i].shape(), to.shape()) &&
                      views[i].dtype() == to.dtype();
    if (!fits) throw nb::value_error(("MultiheadAttention: " + name + ": wrong shape").c_str());
    copy(views[i], to);
  }
  packed_->repack();
}

void PackedModule::forward(const std::array<nb::handle, 5>& inputs,
                           const std::array<nb::handle, 2>& outputs, ForwardOptions options) const {
  const Call call = call_of(inputs, outputs, &options);
  nb::gil_scoped_release others_may_run;
  module_->forward_into(call.query, call.key, call.value, options, call.outputs.out,
                        call.outputs.weights);
}

std::unique_ptr<TrainedCall> PackedModule::forward_training(
    const std::array<nb::handle, 5>& inputs, const std::array<nb::handle, 2>& outputs,
    ForwardOptions options, const DropoutDraw& dropout) const {
  const Call call = call_of(inputs, outputs, &options);
  auto trained = std::make_unique<TrainedCall>(module_);
  trained->context()->dropout = dropout;
  nb::gil_scoped_release others_may_run;
  trained->module().forward_into(call.query, call.key, call.value, options, call.outputs,
                                 trained->context());
  return trained;
}

void PackedModule::forward_cached(nb::handle query, SharedCache& cache, nb::handle lengths,
                                  int64_t sequence, nb::handle out) const {
  const ConstTensorView tokens = tensor_view(query, "query");
  const CachedForwardOptions options{.lengths = tensor_view(lengths, "lengths"),
                                     .sequence = sequence};
  const TensorView to = tensor_view(out, "out");
  cache.change([&](KvCache& alone) { module_->forward_cached_into(tokens, &alone, options, to); });
}

void TrainedCall::backward(const std::array<nb::handle, 2>& d_outputs,
                           const std::array<nb::handle, 5>& d_inputs,
                           const nb::tuple& d_parameters) const {
  const OutputGradients from{tensor_view(d_outputs[0], "d_out"),
                             tensor_view(d_outputs[1], "d_weights")};
  const InputGradients to{tensor_view(d_inputs[0], "d_query"), tensor_view(d_inputs[1], "d_key"),
                          tensor_view(d_inputs[2], "d_value"),
                          tensor_view(d_inputs[4], "d_attn_mask"),
                          tensor_view(d_inputs[3], "d_key_padding_mask")};
  ParameterViews parameters;
  parameters.reserve(d_parameters.size());
  size_t i = 0;
  for (const auto& [name, parameter] : module_->state_dict()) {
    parameters.emplace_back(name, tensor_view(d_parameters[i++], name.c_str()));
  }
  nb::gil_scoped_release others_may_run;
  module_->backward(context_, from, to, parameters);
}

namespace {

void bind_calls(nb::module_& module) {
  nb::class_<TrainedCall>(module, "TrainedCall")
      .def("backward", &TrainedCall::backward, nb::arg("d_outputs"), nb::arg("d_inputs"),
           nb::arg("d_parameters"));
  nb::class_<PackedModule>(module, "PackedModule")
      .def("forward_cached", &PackedModule::forward_cached, nb::arg("query"), nb::arg("cache"),
           nb::arg("lengths").none(), nb::arg("sequence"), nb::arg("out"))
      .def(
          "forward",
          [](const PackedModule& self, const std::array<nb::handle, 5>& inputs,
             const std::array<nb::handle, 2>& outputs, bool is_causal, const char* align,
             std::optional<const char*> weights, const char* empty,
             std::optional<std::pair<double, uint64_t>> training, int64_t query_position,
             int64_t key_position) -> std::unique_ptr<TrainedCall> {
            const ForwardOptions options{.is_causal = is_causal,
                                         .causal_align = causal_align(align),
                                         .need_weights = weights_mode(weights),
                                         .empty_rows = empty_rows(empty),
                                         .query_position = query_position,
                                         .key_position = key_position};
            if (training) {
              return self.forward_training(inputs, outputs, options,
                                           {.seed = training->second, .p = training->first});
            }
            self.forward(inputs, outputs, options);
            return nullptr;
          },
          nb::arg("inputs"), nb::arg("outputs"), nb::arg("is_causal"), nb::arg("causal_align"),
          nb::arg("weights").none(), nb::arg("empty_rows"), nb::arg("training").none(),
          nb::arg("query_position"), nb::arg("key_position"));
}

}  // namespace

void bind_torch_module(nb::module_& module) {
  bind_calls(module);
  nb::class_<TorchModule>(module, "TorchModule")
      .def(
          "__init__",
          [](TorchModule* self, const std::array<int64_t, 4>& widths,
             const std::array<bool, 4>& flags, const char* dtype, nb::object parameter_type,
             int64_t num_kv_heads, int64_t head_dim, bool qk_norm, double qk_norm_eps,
             nb::handle rope) {
            const auto [embed_dim, num_heads, kdim, vdim] = widths;
            const auto [batch_first, bias, add_bias_kv, add_zero_attn] = flags;
            new (self)
                TorchModule({.embed_dim = embed_dim,
                             .num_heads = num_heads,
                             .layout = batch_first ? Layout::kBatchFirst : Layout::kSequenceFirst,
                             .bias = bias,
                             .add_bias_kv = add_bias_kv,
                             .add_zero_attn = add_zero_attn,
                             .kdim = kdim,
                             .vdim = vdim,
                             .dtype = float_dtype(dtype),
                             .num_kv_heads = num_kv_heads,
                             .head_dim = head_dim,
                             .qk_norm = qk_norm,
                             .qk_norm_eps = qk_norm_eps,
                             .rope = rope_of(rope)},
                            std::move(parameter_type));
          },
          nb::arg("widths"), nb::arg("flags"), nb::arg("dtype"), nb::arg("parameter_type"),
          nb::arg("num_kv_heads") = 0, nb::arg("head_dim") = 0, nb::arg("qk_norm") = false,
          nb::arg("qk_norm_eps") = MultiheadAttention::Config().qk_norm_eps,
          nb::arg("rope").none() = nb::none())
      .def("pack", &TorchModule::pack, nb::arg("parameters"))
      .def("follow", &TorchModule::follow, nb::arg("parameters"));
}

}  // namespace polyhead::python
