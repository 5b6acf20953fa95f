// What config.json says about a BERT encoder.
#pragma once

#include <cstdint>
#include <string>

namespace polyhead::cli {

struct BertConfig {
  std::string name;  // "nreimers/MiniLM-L6-H384-uncased"
  int64_t num_layers = 0, num_heads = 0, embed_dim = 0, inner_dim = 0;
  int64_t max_len = 0;  // positions the model has learned
  double epsilon = 0;   // of the layer norms

  // Throws IoError if a field is missing, Unsupported for another kind of model.
  static BertConfig load(const std::string& folder);
};

}  // namespace polyhead::cli
