#include "demo/bert_encoder.h"

#include <algorithm>
#include <cmath>

#include "base/message.h"

namespace polyhead::cli {
namespace {

// The only tensor whose rows the configuration does not count for us.
Tensor read_rows(const SafetensorsFile& file, const std::string& name, int64_t width) {
  const SafetensorsEntry* entry = file.find(name);
  const bool fits = entry != nullptr && entry->shape.size() == 2;
  return read_tensor(file, name, {fits ? entry->shape[0] : 1, width});
}

void add_row(const Tensor& table, int64_t row, float* to) {
  const float* from = table.data_as<float>() + row * table.size(1);
  for (int64_t i = 0; i < table.size(1); ++i) to[i] += from[i];
}

}  // namespace

TokenBatch::TokenBatch(std::vector<std::vector<int32_t>> sentences) : ids(std::move(sentences)) {
  for (const auto& sentence : ids) len = std::max(len, static_cast<int64_t>(sentence.size()));
  padding = Tensor(DType::kBool, {batch(), len});
  for (int64_t b = 0; b < batch(); ++b) {
    const auto used = static_cast<int64_t>(ids[static_cast<size_t>(b)].size());
    std::fill(padding.data_as<bool>() + b * len + used, padding.data_as<bool>() + (b + 1) * len,
              true);
  }
}

BertEncoder::BertEncoder(const BertConfig& config, const SafetensorsFile& file)
    : config_(config),
      words_(read_rows(file, "embeddings.word_embeddings.weight", config.embed_dim)),
      positions_(read_tensor(file, "embeddings.position_embeddings.weight",
                             {config.max_len, config.embed_dim})),
      segments_(read_rows(file, "embeddings.token_type_embeddings.weight", config.embed_dim)),
      embedding_norm_(
          read_layer_norm(file, "embeddings.LayerNorm", config.embed_dim, config.epsilon)) {}

BertEncoder BertEncoder::load(const std::string& folder, const Progress& progress) {
  const BertConfig config = BertConfig::load(folder);
  const auto report = [&](int64_t done) {
    if (progress) progress(done, config.num_layers + 1);
  };
  report(0);
  const SafetensorsFile file(folder + "/model.safetensors");
  BertEncoder encoder(config, file);
  for (int64_t l = 0; l < config.num_layers; ++l) {
    report(l + 1);
    encoder.layers_.push_back(load_layer(file, config, l));
  }
  report(config.num_layers + 1);
  return encoder;
}

BertEncoder::Layer BertEncoder::load_layer(const SafetensorsFile& file, const BertConfig& config,
                                           int64_t index) {
  const std::string prefix = message("encoder.layer.", index, ".");
  const int64_t width = config.embed_dim;
  return {.attention = MultiheadAttention::load(file.path(), {.num_heads = config.num_heads,
                                                              .layout = Layout::kBatchFirst,
                                                              .prefix = prefix,
                                                              .names = name_maps::bert()}),
          .attention_norm =
              read_layer_norm(file, prefix + "attention.output.LayerNorm", width, config.epsilon),
          .feed_forward = FeedForward(file, prefix, width, config.inner_dim),
          .out_norm = read_layer_norm(file, prefix + "output.LayerNorm", width, config.epsilon)};
}

Tensor BertEncoder::embed(const TokenBatch& batch) const {
  if (batch.len > config_.max_len) {
    throw InvalidArgument(message("BertEncoder: batch: ", batch.len, " tokens; the model has ",
                                  config_.max_len, " positions"));
  }
  Tensor x(DType::kFloat32, {batch.batch(), batch.len, config_.embed_dim});
  auto* row = x.data_as<float>();
  for (const auto& sentence : batch.ids) {
    for (int64_t i = 0; i < batch.len; ++i, row += config_.embed_dim) {
      if (i >= static_cast<int64_t>(sentence.size())) continue;  // padding: nobody looks at it
      const int32_t id = sentence[static_cast<size_t>(i)];
      if (id < 0 || id >= words_.size(0)) {
        throw InvalidArgument(message("BertEncoder: batch: token ", id, "; the model has ",
                                      words_.size(0), " tokens"));
      }
      add_row(words_, id, row);
      add_row(positions_, i, row);
      add_row(segments_, 0, row);
    }
  }
  embedding_norm_.forward_into(x, x);
  return x;
}

Encoding BertEncoder::run(const TokenBatch& batch, WeightsMode weights) const {
  Encoding encoding;
  encoding.hidden_states.push_back(embed(batch));
  for (const Layer& layer : layers_) {
    const Tensor& in = encoding.hidden_states.back();
    auto [x, layer_weights] = layer.attention.forward(
        in, in, in, {.key_padding_mask = batch.padding, .need_weights = weights});
    nn::add_to(x, in);
    layer.attention_norm.forward_into(x, x);
    Tensor out = layer.feed_forward.run(x);
    nn::add_to(out, x);
    layer.out_norm.forward_into(out, out);
    encoding.hidden_states.push_back(std::move(out));
    if (weights != WeightsMode::kNone) encoding.weights.push_back(std::move(layer_weights));
  }
  return encoding;
}

Tensor sentence_vectors(const TokenBatch& batch, const Tensor& hidden) {
  const int64_t width = hidden.size(2);
  Tensor out(DType::kFloat32, {batch.batch(), width});
  for (int64_t b = 0; b < batch.batch(); ++b) {
    const auto used = static_cast<int64_t>(batch.ids[static_cast<size_t>(b)].size());
    std::vector<double> mean(static_cast<size_t>(width));
    double squares = 0;
    for (size_t d = 0; d < mean.size(); ++d) {
      const float* column =
          hidden.data_as<float>() + b * batch.len * width + static_cast<int64_t>(d);
      for (int64_t i = 0; i < used; ++i) mean[d] += column[i * width] / static_cast<double>(used);
      squares += mean[d] * mean[d];
    }
    float* to = out.data_as<float>() + b * width;
    const double length = std::max(std::sqrt(squares), 1e-12);  // as the model's authors guard it
    for (size_t d = 0; d < mean.size(); ++d) to[d] = static_cast<float>(mean[d] / length);
  }
  return out;
}

}  // namespace polyhead::cli
