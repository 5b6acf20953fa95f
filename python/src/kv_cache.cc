// The cache of keys and values, as Python calls it (polyhead/_kv_cache.py).
#include "kv_cache.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>
#include <polyhead/error.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "arrays.h"
#include "bind.h"
#include "op_options.h"
#include "words.h"

namespace polyhead::python {
namespace {

nb::dict config_of(const SharedCache& cache) {
  const KvCache::Config& config = cache.config();
  nb::dict dict;
  dict["batch"] = config.batch;
  dict["num_kv_heads"] = config.num_kv_heads;
  dict["head_dim"] = config.head_dim;
  dict["v_head_dim"] = config.v_head_dim;
  dict["dtype"] = dtype_name(config.dtype);
  dict["page_len"] = config.page_len;
  dict["num_pages"] = config.num_pages;
  dict["window"] = config.window > 0 ? nb::cast(config.window) : nb::none();
  return dict;
}

// What `of` says of each sequence.
std::vector<int64_t> of_each(const KvCache& cache, int64_t (KvCache::*of)(int64_t) const) {
  std::vector<int64_t> numbers;
  for (int64_t n = 0; n < cache.config().batch; ++n) numbers.push_back((cache.*of)(n));
  return numbers;
}

std::vector<int64_t> lengths_of(const KvCache& cache) { return of_each(cache, &KvCache::length); }

int64_t longest_of(const KvCache& cache) { return std::ranges::max(lengths_of(cache)); }

void append(SharedCache& cache, nb::handle key, nb::handle value, nb::handle lengths,
            std::optional<int64_t> sequence) {
  const Input keys = input(key, "KvCache.append: key", dtype_name(cache.config().dtype));
  const Input values = input(value, "KvCache.append: value", dtype_name(cache.config().dtype));
  const Input counts = optional_input(lengths, "KvCache.append: lengths", kIntegers);
  cache.change([&](KvCache& alone) {
    if (sequence.has_value()) {
      alone.append(*sequence, keys.view, values.view);
    } else {
      alone.append(keys.view, values.view, counts.view);
    }
  });
}

// [B, H, L, D], or with cu_seqlens_q [tokens, H, D]: as the library has it.
ConstTensorView queries_of(const ConstTensorView& query, bool is_packed, int64_t head_dim) {
  const bool fits = is_packed ? query.rank() == 3 && query.size(2) == head_dim : query.rank() == 4;
  if (fits) return is_packed ? batch_of_one(query) : query;
  const std::string width = std::to_string(head_dim);
  throw InvalidArgument("KvCache.attend: query: shape is " + query.shape_string() + "; need " +
                        (is_packed ? "[tokens, heads, " + width + "], with cu_seqlens_q"
                                   : "[batch, heads, length, " + width + "], or [tokens, heads, " +
                                         width + "] and cu_seqlens_q"));
}

// [B, H, L, S] or [B, L, S], as long as the longest sequence is now.
NewArray new_weights(const SharedCache& cache, const ConstTensorView& queries, WeightsMode mode) {
  if (mode == WeightsMode::kNone) return {};
  std::vector<int64_t> shape(queries.shape().begin(), queries.shape().end());
  shape.back() = cache.read(longest_of);
  if (mode == WeightsMode::kAverage) shape.erase(shape.begin() + 1);
  return new_array(shape, cache.config().dtype);
}

nb::object attend(const SharedCache& cache, nb::handle query, const Options& options) {
  const Input q = input(query, "KvCache.attend: query", dtype_name(cache.config().dtype));
  const AttentionOptions of_call = options.of_part(options.mask(), 0);
  const bool is_packed = of_call.cu_seqlens_q.defined();
  const ConstTensorView queries = queries_of(q.view, is_packed, cache.config().head_dim);
  std::vector<int64_t> shape(q.view.shape().begin(), q.view.shape().end());
  shape.back() = cache.config().v_head_dim;
  const NewArray out = new_array(shape, cache.config().dtype);
  NewArray weights;
  const auto attend_if_fits = [&](const KvCache& unchanged) {
    const TensorView& to = weights.view;
    if (to.defined() && longest_of(unchanged) != to.size(to.rank() - 1)) return false;
    in_names([&] { return names_of(of_call, options.function().c_str()); },
             [&] {
               attention_forward(
                   queries, unchanged, of_call,
                   {.out = is_packed ? batch_of_one(out.view) : out.view, .weights = to});
             });
    return true;
  };
  do {  // again where another thread has changed the cache before it was read
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
    weights = new_weights(cache, queries, options.weights());
  } while (!cache.read(attend_if_fits));
  options.rethrow();
  if (!weights.view.defined()) return out.array;
  return nb::make_tuple(out.array, weights.array);
}

void bind_changes(nb::class_<SharedCache>& type) {
  type.def("append", append, nb::arg("key").none(), nb::arg("value").none(),
           nb::arg("lengths").none(), nb::arg("sequence").none());
  type.def(
      "truncate",
      [](SharedCache& cache, int64_t sequence, int64_t length) {
        cache.change([=](KvCache& alone) { alone.truncate(sequence, length); });
      },
      nb::arg("sequence"), nb::arg("length"));
  type.def(
      "reset",
      [](SharedCache& cache, std::optional<int64_t> sequence) {
        cache.change(
            [=](KvCache& alone) { sequence.has_value() ? alone.reset(*sequence) : alone.reset(); });
      },
      nb::arg("sequence").none());
}

}  // namespace

void bind_kv_cache(nb::module_& module) {
  nb::class_<SharedCache> type(module, "KvCache");
  type.def(
      "__init__",
      [](SharedCache* self, int64_t batch, int64_t num_kv_heads, int64_t head_dim,
         std::optional<int64_t> v_head_dim, const char* dtype, int64_t page_len, int64_t num_pages,
         std::optional<int64_t> window) {
        led_by("KvCache", [&] {
          const KvCache::Config config{batch,
                                       num_kv_heads,
                                       head_dim,
                                       given(v_head_dim, "v_head_dim"),
                                       float_dtype(dtype),
                                       page_len,
                                       num_pages,
                                       given(window, "window")};
          in_names([] { return Renames{{"KvCache: config.", "KvCache: "}}; },
                   [&] { new (self) SharedCache(config); });
        });
      },
      nb::arg("batch"), nb::arg("num_kv_heads"), nb::arg("head_dim"), nb::arg("v_head_dim").none(),
      nb::arg("dtype"), nb::arg("page_len"), nb::arg("num_pages"), nb::arg("window").none());
  type.def_prop_ro("config", config_of);
  type.def_prop_ro("lengths", [](const SharedCache& cache) { return cache.read(lengths_of); });
  type.def_prop_ro("first_kept", [](const SharedCache& cache) {
    return cache.read(
        [](const KvCache& unchanged) { return of_each(unchanged, &KvCache::first_kept); });
  });
  type.def_prop_ro("free_pages", [](const SharedCache& cache) {
    return cache.read([](const KvCache& unchanged) { return unchanged.free_pages(); });
  });
  bind_changes(type);
  type.def("attend", attend, nb::arg("query").none(), nb::arg("options"));
}

}  // namespace polyhead::python
