// Reads back what `explain` wrote: the page's data and the text's matrices.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace polyhead::cli {

struct PageMatrix {
  std::vector<int64_t> shape;
  std::vector<double> numbers;
};

struct Page {
  nlohmann::json meta;
  std::map<std::string, PageMatrix> matrices;
  double difference = 0;
};
Page read_page(const std::string& html);

struct TextMatrix {
  std::string name;
  int64_t rows = 0, columns = 0;                // as its title says
  std::vector<std::vector<std::string>> cells;  // the numbers that are shown, as they are printed
};
std::vector<TextMatrix> read_matrices(const std::string& text);

}  // namespace polyhead::cli
