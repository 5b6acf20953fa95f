// The two modules. Their Python classes (polyhead/_modules.py) hold one each.
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <polyhead/error.h>
#include <polyhead/multihead_attention.h>

#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "arrays.h"
#include "bind.h"
#include "words.h"

namespace polyhead::python {
namespace {

namespace fs = std::filesystem;
using Mha = MultiheadAttention;
using Scratch = FromScratchMultiHeadAttention;

Layout layout_of(bool batch_first) {
  return batch_first ? Layout::kBatchFirst : Layout::kSequenceFirst;
}

// 0 stands for "not given" in the library; here None does, and 0 is a mistake.
int64_t given(std::optional<int64_t> size, const char* argument) {
  if (size == 0) throw InvalidArgument(std::string(argument) + ": got 0; need at least 1, or None");
  return size.value_or(0);
}

// A dict {name in the file: name of ours}, the word for a ready-made one, or None.
NameMap name_map(nb::handle names) {
  if (names.is_none()) return {};
  if (!nb::isinstance<nb::str>(names)) return nb::cast<NameMap>(names);
  const auto word = nb::cast<std::string>(names);
  if (word == "bert") return name_maps::bert();
  if (word == "vit") return name_maps::vit();
  if (word == "llama") return name_maps::llama();
  throw InvalidArgument("names: got '" + word + "'; need a dict, 'bert', 'vit' or 'llama'");
}

nb::dict config_of(const Mha& module) {
  const Mha::Config& config = module.config();
  nb::dict dict;
  dict["embed_dim"] = config.embed_dim;
  dict["num_heads"] = config.num_heads;
  dict["dropout"] = config.dropout;
  dict["bias"] = config.bias;
  dict["add_bias_kv"] = config.add_bias_kv;
  dict["add_zero_attn"] = config.add_zero_attn;
  dict["kdim"] = config.kdim;
  dict["vdim"] = config.vdim;
  dict["batch_first"] = config.layout == Layout::kBatchFirst;
  dict["dtype"] = dtype_name(config.dtype);
  return dict;
}

nb::dict config_of(const Scratch& module) {
  nb::dict dict;
  dict["embed_size"] = module.embed_size();
  dict["num_heads"] = module.num_heads();
  dict["head_width"] = head_width_word(module.head_width());
  dict["dtype"] = dtype_name(module.dtype());
  return dict;
}

template <class Module>
nb::dict state_dict_of(nb::handle_t<Module> self) {
  nb::dict state;
  for (const auto& [name, view] : nb::cast<Module&>(self).state_dict()) {
    state[name.c_str()] = read_only_array(view, self);
  }
  return state;
}

template <class Module>
void set_parameter(Module& module, const std::string& name, nb::handle value) {
  module.set_parameter(name, input(value, name.c_str()).view);
}

template <class Module>
void bind_state(nb::class_<Module>& type) {
  type.def_prop_ro("config", [](const Module& module) { return config_of(module); });
  type.def("state_dict", state_dict_of<Module>);
  type.def("set_parameter", set_parameter<Module>, nb::arg("name"), nb::arg("value"));
  type.def(
      "save",
      [](const Module& module, const fs::path& path, const std::string& prefix) {
        module.save(path.string(), prefix);
      },
      nb::arg("path"), nb::arg("prefix"));
}

// Weights [B, L, S'] or [B, H, L, S'], of an unbatched call without B. The module refuses inputs of
// other ranks; then there is nothing to allocate.
NewArray new_weights(const Mha::Config& config, const ConstTensorView& query,
                     const ConstTensorView& key, WeightsMode mode) {
  const int rank = query.rank();
  if (mode == WeightsMode::kNone || rank < 2 || rank > 3 || key.rank() != rank) return {};
  const bool sequence_first = rank == 3 && config.layout == Layout::kSequenceFirst;
  const int length_dim = sequence_first ? 0 : rank - 2;
  std::vector<int64_t> shape;
  if (rank == 3) shape.push_back(query.size(sequence_first ? 1 : 0));
  if (mode == WeightsMode::kPerHead) shape.push_back(config.num_heads);
  shape.push_back(query.size(length_dim));
  shape.push_back(key.size(length_dim) + config.add_bias_kv + config.add_zero_attn);
  return new_array(shape, config.dtype);
}

nb::tuple forward_mha(const Mha& module, const std::array<nb::handle, 5>& inputs,
                      ForwardOptions options) {
  const Input query = input(inputs[0], "MultiheadAttention: query");
  const Input key = input(inputs[1], "MultiheadAttention: key");
  const Input value = input(inputs[2], "MultiheadAttention: value");
  const Input padding = optional_input(inputs[3], "MultiheadAttention: key_padding_mask");
  const Input mask = optional_input(inputs[4], "MultiheadAttention: attn_mask");
  options.key_padding_mask = padding.view;
  options.attn_mask = mask.view;
  const NewArray out = new_array(query.view.shape(), module.config().dtype);
  const NewArray weights = new_weights(module.config(), query.view, key.view, options.need_weights);
  {
    nb::gil_scoped_release others_may_run;
    module.forward_into(query.view, key.view, value.view, options, out.view, weights.view);
  }
  return nb::make_tuple(out.array, weights.view.defined() ? weights.array : nb::none());
}

nb::object forward_scratch(const Scratch& module, nb::handle q, nb::handle k, nb::handle v,
                           nb::handle mask) {
  const Input query = input(q, "FromScratchMultiHeadAttention: q");
  const Input key = input(k, "FromScratchMultiHeadAttention: k");
  const Input value = input(v, "FromScratchMultiHeadAttention: v");
  const Input hidden = optional_input(mask, "FromScratchMultiHeadAttention: mask");
  const NewArray out = new_array(query.view.shape(), module.dtype());
  nb::gil_scoped_release others_may_run;
  module.forward_into(query.view, key.view, value.view, hidden.view, out.view);
  return out.array;
}

void bind_mha(nb::module_& module) {
  nb::class_<Mha> type(module, "MultiheadAttention");
  bind_state(type);
  type.def(
      "__init__",
      [](Mha* self, int64_t embed_dim, int64_t num_heads, double dropout, bool bias,
         bool add_bias_kv, bool add_zero_attn, std::optional<int64_t> kdim,
         std::optional<int64_t> vdim, bool batch_first, const char* dtype, uint64_t seed) {
        new (self) Mha({embed_dim, num_heads, layout_of(batch_first), bias, add_bias_kv,
                        add_zero_attn, given(kdim, "MultiheadAttention: kdim"),
                        given(vdim, "MultiheadAttention: vdim"), dropout, float_dtype(dtype)},
                       seed);
      },
      nb::arg("embed_dim"), nb::arg("num_heads"), nb::arg("dropout"), nb::arg("bias"),
      nb::arg("add_bias_kv"), nb::arg("add_zero_attn"), nb::arg("kdim").none(),
      nb::arg("vdim").none(), nb::arg("batch_first"), nb::arg("dtype"), nb::arg("seed"));
  type.def_static(
      "load",
      [](const fs::path& path, const std::string& prefix, std::optional<int64_t> num_heads,
         bool batch_first, bool add_zero_attn, double dropout, nb::handle names) {
        return Mha::load(path.string(), {given(num_heads, "num_heads"), layout_of(batch_first),
                                         prefix, add_zero_attn, dropout, name_map(names)});
      },
      nb::arg("path"), nb::arg("prefix"), nb::arg("num_heads").none(), nb::arg("batch_first"),
      nb::arg("add_zero_attn"), nb::arg("dropout"), nb::arg("names").none());
  type.def(
      "forward",
      [](const Mha& self, nb::handle query, nb::handle key, nb::handle value,
         nb::handle key_padding_mask, nb::handle attn_mask, std::optional<const char*> weights,
         bool is_causal, const char* causal_align_word, const char* empty_rows_word) {
        return forward_mha(self, {query, key, value, key_padding_mask, attn_mask},
                           {.is_causal = is_causal,
                            .causal_align = causal_align(causal_align_word),
                            .need_weights = weights_mode(weights),
                            .empty_rows = empty_rows(empty_rows_word)});
      },
      nb::arg("query").none(), nb::arg("key").none(), nb::arg("value").none(),
      nb::arg("key_padding_mask").none(), nb::arg("attn_mask").none(), nb::arg("weights").none(),
      nb::arg("is_causal"), nb::arg("causal_align"), nb::arg("empty_rows"));
}

void bind_scratch(nb::module_& module) {
  nb::class_<Scratch> type(module, "FromScratchMultiHeadAttention");
  bind_state(type);
  type.def(
      "__init__",
      [](Scratch* self, int64_t embed_size, int64_t num_heads, const char* width, const char* dtype,
         uint64_t seed) {
        new (self) Scratch(embed_size, num_heads, head_width(width), seed, float_dtype(dtype));
      },
      nb::arg("embed_size"), nb::arg("num_heads"), nb::arg("head_width"), nb::arg("dtype"),
      nb::arg("seed"));
  type.def_static(
      "load",
      [](const fs::path& path, const std::string& prefix, std::optional<int64_t> num_heads,
         nb::handle names) {
        return Scratch::load(path.string(), {.num_heads = given(num_heads, "num_heads"),
                                             .prefix = prefix,
                                             .names = name_map(names)});
      },
      nb::arg("path"), nb::arg("prefix"), nb::arg("num_heads").none(), nb::arg("names").none());
  type.def("forward", forward_scratch, nb::arg("q").none(), nb::arg("k").none(),
           nb::arg("v").none(), nb::arg("mask").none());
}

}  // namespace

void bind_modules(nb::module_& module) {
  bind_mha(module);
  bind_scratch(module);
}

}  // namespace polyhead::python
