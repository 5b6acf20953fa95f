// The two modules. Their Python classes (polyhead/_modules.py) hold one each.
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <polyhead/error.h>
#include <polyhead/multihead_attention.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "arrays.h"
#include "bind.h"
#include "module_calls.h"
#include "renames.h"
#include "rope.h"
#include "words.h"

namespace polyhead::python {
namespace {

namespace fs = std::filesystem;
using Mha = MultiheadAttention;
using Scratch = FromScratchMultiHeadAttention;

Layout layout_of(bool batch_first) {
  return batch_first ? Layout::kBatchFirst : Layout::kSequenceFirst;
}

Renames names_of_load() {
  return {
      {"MultiheadAttention::load", "from_safetensors"},
      {"FromScratchMultiHeadAttention::load", "from_safetensors"},
      {"MultiheadAttention: layout: not said; must be Layout::kBatchFirst or "
       "Layout::kSequenceFirst",
       "from_safetensors: batch_first: not given, and not in the file's __metadata__; must be True "
       "or False"}};
}

// A dict {name in the file: name of ours}, the word for a ready-made one, or None.
NameMap name_map(nb::handle names) {
  if (names.is_none()) return {};
  if (NameMap map; nb::try_cast<NameMap>(names, map)) return map;
  if (!nb::isinstance<nb::str>(names)) {
    const std::string got = nb::type_name(names.type()).c_str();
    throw nb::type_error(
        ("from_safetensors: names: got " + got +
         "; need a dict {name in the file: torch's name}, 'bert', 'vit' or 'llama'")
            .c_str());
  }
  const auto word = nb::cast<std::string>(names);
  if (word == "bert") return name_maps::bert();
  if (word == "vit") return name_maps::vit();
  if (word == "llama") return name_maps::llama();
  throw InvalidArgument("from_safetensors: names: got '" + word +
                        "'; need a dict, 'bert', 'vit' or 'llama'");
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
  dict["num_kv_heads"] = config.num_kv_heads;
  dict["head_dim"] = config.head_dim;
  dict["qk_norm"] = config.qk_norm;
  dict["qk_norm_eps"] = config.qk_norm_eps;
  dict["rope"] = rope_dict(config.rope);
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

// {name: array} on the module's own memory.
template <class Module>
nb::dict arrays_of(nb::handle_t<Module> self, bool writable) {
  nb::dict arrays;
  for (const auto& [name, view] : nb::cast<Module&>(self).parameters()) {
    arrays[name.c_str()] = array_of(view, self, writable);
  }
  return arrays;
}

template <class Module>
void bind_state(nb::class_<Module>& type) {
  type.def_prop_ro("config", [](const Module& module) { return config_of(module); });
  type.def("state_dict", [](nb::handle_t<Module> self) { return arrays_of<Module>(self, false); });
  type.def("parameters", [](nb::handle_t<Module> self) { return arrays_of<Module>(self, true); });
  type.def("repack", &Module::repack, nb::call_guard<nb::gil_scoped_release>());
  type.def(
      "save",
      [](const Module& module, const fs::path& path, const std::string& prefix) {
        module.save(path.string(), prefix);
      },
      nb::arg("path"), nb::arg("prefix"), nb::call_guard<nb::gil_scoped_release>());
}

void bind_mha_forward(nb::class_<Mha>& type) {
  type.def(
      "forward",
      [](const Mha& self, nb::handle query, nb::handle key, nb::handle value,
         nb::handle key_padding_mask, nb::handle attn_mask, std::optional<const char*> weights,
         bool is_causal, const char* causal_align_word, const char* empty_rows_word,
         int64_t query_position, int64_t key_position) {
        const auto options = led_by("MultiheadAttention", [&] {
          return ForwardOptions{.is_causal = is_causal,
                                .causal_align = causal_align(causal_align_word),
                                .need_weights = weights_mode(weights),
                                .empty_rows = empty_rows(empty_rows_word),
                                .query_position = query_position,
                                .key_position = key_position};
        });
        return forward_mha(self, {query, key, value, key_padding_mask, attn_mask}, options);
      },
      nb::arg("query").none(), nb::arg("key").none(), nb::arg("value").none(),
      nb::arg("key_padding_mask").none(), nb::arg("attn_mask").none(), nb::arg("weights").none(),
      nb::arg("is_causal"), nb::arg("causal_align"), nb::arg("empty_rows"),
      nb::arg("query_position") = 0, nb::arg("key_position") = 0);
}

nb::dict cache_config(const Mha& self, int64_t batch, int64_t num_pages) {
  const KvCache::Config config = self.cache_config(batch, num_pages);
  nb::dict dict;  // by the names of Python's KvCache
  dict["batch"] = config.batch;
  dict["num_kv_heads"] = config.num_kv_heads;
  dict["head_dim"] = config.head_dim;
  dict["dtype"] = dtype_name(config.dtype);
  dict["num_pages"] = config.num_pages;
  return dict;
}

void bind_mha(nb::module_& module) {
  nb::class_<Mha> type(module, "MultiheadAttention");
  bind_state(type);
  type.def(
      "__init__",
      [](Mha* self, int64_t embed_dim, int64_t num_heads, double dropout, bool bias,
         bool add_bias_kv, bool add_zero_attn, std::optional<int64_t> kdim,
         std::optional<int64_t> vdim, bool batch_first, const char* dtype, uint64_t seed,
         std::optional<int64_t> num_kv_heads, std::optional<int64_t> head_dim, bool qk_norm,
         double qk_norm_eps, nb::handle rope) {
        led_by("MultiheadAttention", [&] {
          new (self) Mha({embed_dim, num_heads, layout_of(batch_first), bias, add_bias_kv,
                          add_zero_attn, given(kdim, "kdim"), given(vdim, "vdim"), dropout,
                          float_dtype(dtype), given(num_kv_heads, "num_kv_heads"),
                          given(head_dim, "head_dim"), qk_norm, qk_norm_eps, rope_of(rope)},
                         seed);
        });
      },
      nb::arg("embed_dim"), nb::arg("num_heads"), nb::arg("dropout"), nb::arg("bias"),
      nb::arg("add_bias_kv"), nb::arg("add_zero_attn"), nb::arg("kdim").none(),
      nb::arg("vdim").none(), nb::arg("batch_first"), nb::arg("dtype"), nb::arg("seed"),
      nb::arg("num_kv_heads") = nb::none(), nb::arg("head_dim") = nb::none(),
      nb::arg("qk_norm") = false, nb::arg("qk_norm_eps") = Mha::Config().qk_norm_eps,
      nb::arg("rope") = nb::none());
  type.def_static(
      "load",
      [](const fs::path& path, const std::string& prefix, std::optional<int64_t> num_heads,
         std::optional<bool> batch_first, std::optional<bool> add_zero_attn,
         std::optional<double> dropout, nb::handle names, nb::handle rope,
         std::optional<double> qk_norm_eps) {
        const LoadOptions options{given(num_heads, "from_safetensors: num_heads"),
                                  batch_first ? layout_of(*batch_first) : Layout::kUnset,
                                  prefix,
                                  add_zero_attn,
                                  dropout,
                                  name_map(names),
                                  led_by("from_safetensors", [&] { return rope_of(rope); }),
                                  qk_norm_eps};
        nb::gil_scoped_release others_may_run;
        return in_names(names_of_load, [&] { return Mha::load(path.string(), options); });
      },
      nb::arg("path"), nb::arg("prefix"), nb::arg("num_heads").none(),
      nb::arg("batch_first").none(), nb::arg("add_zero_attn").none(), nb::arg("dropout").none(),
      nb::arg("names").none(), nb::arg("rope") = nb::none(), nb::arg("qk_norm_eps") = nb::none());
  bind_mha_forward(type);
  type.def("forward_cached", forward_cached_mha, nb::arg("query").none(), nb::arg("cache"),
           nb::arg("lengths").none(), nb::arg("sequence"));
  type.def("cache_config", cache_config, nb::arg("batch"), nb::arg("num_pages"));
}

void bind_scratch(nb::module_& module) {
  nb::class_<Scratch> type(module, "FromScratchMultiHeadAttention");
  bind_state(type);
  type.def(
      "__init__",
      [](Scratch* self, int64_t embed_size, int64_t num_heads, const char* width, const char* dtype,
         uint64_t seed) {
        led_by("FromScratchMultiHeadAttention", [&] {
          new (self) Scratch(embed_size, num_heads, head_width(width), seed, float_dtype(dtype));
        });
      },
      nb::arg("embed_size"), nb::arg("num_heads"), nb::arg("head_width"), nb::arg("dtype"),
      nb::arg("seed"));
  type.def_static(
      "load",
      [](const fs::path& path, const std::string& prefix, std::optional<int64_t> num_heads,
         nb::handle names) {
        const LoadOptions options{.num_heads = given(num_heads, "from_safetensors: num_heads"),
                                  .prefix = prefix,
                                  .names = name_map(names)};
        nb::gil_scoped_release others_may_run;
        return in_names(names_of_load, [&] { return Scratch::load(path.string(), options); });
      },
      nb::arg("path"), nb::arg("prefix"), nb::arg("num_heads").none(), nb::arg("names").none());
  type.def(
      "forward",
      [](const Scratch& self, nb::handle q, nb::handle k, nb::handle v, nb::handle mask) {
        return forward_scratch(self, {q, k, v, mask});
      },
      nb::arg("q").none(), nb::arg("k").none(), nb::arg("v").none(), nb::arg("mask").none());
}

}  // namespace

void bind_modules(nb::module_& module) {
  bind_mha(module);
  bind_scratch(module);
}

}  // namespace polyhead::python
