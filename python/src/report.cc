// The page of heads.
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>
#include <polyhead/report.h>

#include <filesystem>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "arrays.h"
#include "bind.h"

namespace polyhead::python {
namespace {

using Words = std::vector<std::string>;

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
    kept.push_back(input(weights, "Report: weights"));
    data.layers.push_back({.name = name, .weights = kept.back().view, .head_notes = {}});
  }
  for (const nb::handle item : items) {
    auto [title, queries, keys] = nb::cast<std::tuple<std::string, Words, Words>>(item);
    data.items.push_back({std::move(title), std::move(queries), std::move(keys)});
  }
  nb::gil_scoped_release others_may_run;
  write_report(path.string(), data);
}

}  // namespace

void bind_report(nb::module_& module) {
  module.def("write_report", write, nb::arg("path"), nb::arg("titles"), nb::arg("guide"),
             nb::arg("layers"), nb::arg("items"));
}

}  // namespace polyhead::python
