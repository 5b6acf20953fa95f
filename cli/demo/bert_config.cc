#include "demo/bert_config.h"

#include "demo/model_json.h"

namespace polyhead::cli {

BertConfig BertConfig::load(const std::string& folder) {
  const std::string path = folder + "/config.json";
  const nlohmann::json file = load_model_json(path);
  const auto require = [&](const char* field, const std::string& wanted) {
    const auto found = json_field<std::string>(file, path, field);
    if (found != wanted)
      throw Unsupported(message(path, ": ", field, " is ", found, "; must be ", wanted));
  };
  require("model_type", "bert");
  require("hidden_act", "gelu");
  if (file.contains("position_embedding_type")) require("position_embedding_type", "absolute");
  BertConfig config;
  config.name = json_field_or<std::string>(file, path, "_name_or_path", "BERT");
  config.num_layers = json_field<int64_t>(file, path, "num_hidden_layers");
  config.num_heads = json_field<int64_t>(file, path, "num_attention_heads");
  config.embed_dim = json_field<int64_t>(file, path, "hidden_size");
  config.inner_dim = json_field<int64_t>(file, path, "intermediate_size");
  config.max_len = json_field<int64_t>(file, path, "max_position_embeddings");
  config.epsilon = json_field<double>(file, path, "layer_norm_eps");
  if (config.num_layers < 1 || config.embed_dim < 1 || config.max_len < 2) {
    throw IoError(message(path, ": ", config.num_layers, " layers of ", config.embed_dim, " with ",
                          config.max_len, " positions; needs at least 1 of 1 with 2"));
  }
  return config;
}

}  // namespace polyhead::cli
