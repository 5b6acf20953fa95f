// A BERT encoder (MiniLM is one) around our MultiheadAttention: token ids -> hidden states, and the
// weights of every head on the way.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <polyhead/nn.h>
#include "demo/bert_config.h"
#include "demo/bert_layers.h"

namespace polyhead::cli {

// Sentences side by side, padded at the end to the longest.
struct TokenBatch {
  std::vector<std::vector<int32_t>> ids;  // as they came, without padding
  int64_t len = 0;                        // of the longest
  Tensor padding;                         // bool [batch, len], true where there is no token

  explicit TokenBatch(std::vector<std::vector<int32_t>> sentences);
  int64_t batch() const { return static_cast<int64_t>(ids.size()); }
};

struct Encoding {
  // What goes into each layer, and last what comes out: num_layers + 1 of [batch, len, embed_dim].
  std::vector<Tensor> hidden_states;
  std::vector<Tensor> weights;  // num_layers of [batch, num_heads, len, len]; empty: not asked for
};

class BertEncoder {
 public:
  // Called before each part of the work: how many parts are done, of how many.
  using Progress = std::function<void(int64_t done, int64_t total)>;

  // Reads config.json and model.safetensors. Throws IoError, Unsupported or InvalidArgument.
  static BertEncoder load(const std::string& folder, const Progress& progress = {});

  // Throws InvalidArgument for an id outside of the vocabulary or a batch longer than max_len.
  Encoding run(const TokenBatch& batch, WeightsMode weights = WeightsMode::kPerHead) const;

  const BertConfig& config() const { return config_; }
  const MultiheadAttention& attention(int64_t layer) const {
    return layers_[static_cast<size_t>(layer)].attention;
  }

 private:
  struct Layer {
    MultiheadAttention attention;
    nn::LayerNorm attention_norm;
    FeedForward feed_forward;
    nn::LayerNorm out_norm;
  };

  BertEncoder(const BertConfig& config, const SafetensorsFile& file);  // without the layers
  static Layer load_layer(const SafetensorsFile& file, const BertConfig& config, int64_t index);
  Tensor embed(const TokenBatch& batch) const;  // [batch, len, embed_dim]

  BertConfig config_;
  Tensor words_;      // [vocabulary, embed_dim]
  Tensor positions_;  // [max_len, embed_dim]
  Tensor segments_;   // [segments, embed_dim]; one sentence is all of segment 0
  nn::LayerNorm embedding_norm_;
  std::vector<Layer> layers_;
};

// The mean of the last hidden states over the tokens, of length 1: what sentences are compared by.
Tensor sentence_vectors(const TokenBatch& batch, const Tensor& hidden);  // [batch, embed_dim]

}  // namespace polyhead::cli
