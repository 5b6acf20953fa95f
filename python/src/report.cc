// The page of heads.
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>
#include <polyhead/report.h>

#include <polyhead/error.h>
#include <polyhead/tensor_view.h>

#include <filesystem>
#include <limits>
#include <sstream>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "arrays.h"
#include "bind.h"

namespace polyhead::python {
namespace {

using Words = std::vector<std::string>;

template <class Float>
bool is_weight(Float x) {
  return x >= 0 && x <= std::numeric_limits<Float>::max();
}

template <class Float>
void check_numbers(const std::string& layer, const ConstTensorView& weights) {
  if (weights.rank() > 1) {
    for (int64_t i = 0; i < weights.size(0); ++i) check_numbers<Float>(layer, weights.select(0, i));
    return;
  }
  const auto* const data = static_cast<const Float*>(weights.data());
  for (int64_t i = 0; weights.rank() == 1 && i < weights.size(0); ++i) {
    const Float x = data[i * weights.stride(0)];
    if (is_weight(x)) continue;
    std::ostringstream got;
    got << x;
    throw InvalidArgument("Report: weights: got " + got.str() + ", in the layer '" + layer +
                          "'; need numbers of 0 or more");
  }
}

void check_weights(const std::string& layer, const ConstTensorView& weights) {
  constexpr int64_t kMost = int64_t{1} << 31;  // a broadcast array may pretend to any number
  if (weights.numel() > kMost) return;         // far more than a page takes
  if (weights.dtype() == DType::kFloat32) check_numbers<float>(layer, weights);
  if (weights.dtype() == DType::kFloat64) check_numbers<double>(layer, weights);
}

// layers: (name, weights); items: (title, tokens of its queries, of its keys)
void write(const std::filesystem::path& path, const std::pair<std::string, std::string>& titles,
           const Words& guide, const nb::list& layers, const nb::list& items) {
  ReportData data;
  data.title = titles.first;
  data.subtitle = titles.second;
  data.guide = guide;
  std::vector<Input> kept;
  for (const nb::handle layer : layers) {
    const auto [name, weights] = nb::cast<std::pair<std::string, nb::object>>(layer);
    kept.push_back(input(weights, "Report: weights", kFloats));
    data.layers.push_back({.name = name, .weights = kept.back().view, .head_notes = {}});
  }
  for (const nb::handle item : items) {
    auto [title, queries, keys] = nb::cast<std::tuple<std::string, Words, Words>>(item);
    data.items.push_back({std::move(title), std::move(queries), std::move(keys)});
  }
  nb::gil_scoped_release others_may_run;
  for (const ReportLayer& layer : data.layers) check_weights(layer.name, layer.weights);
  write_report(path.string(), data);
}

}  // namespace

void bind_report(nb::module_& module) {
  module.def("write_report", write, nb::arg("path"), nb::arg("titles"), nb::arg("guide"),
             nb::arg("layers"), nb::arg("items"));
}

}  // namespace polyhead::python
