#include "model.h"

#include <string>

namespace train {
namespace {

namespace nn = polyhead::nn;
using polyhead::DType;
using polyhead::Layout;
using polyhead::MultiheadAttention;
using polyhead::Tensor;
using polyhead::TensorView;

// 0 .. length - 1 in each row of [batch, length].
Tensor positions_of(const Tensor& tokens) {
  Tensor ids(DType::kInt64, tokens.shape());
  for (int64_t i = 0; i < ids.numel(); ++i) ids.data_as<int64_t>()[i] = i % ids.size(1);
  return ids;
}

}  // namespace

Model::Model(const ModelConfig& config, uint64_t seed)
    : config_(config),
      initial_{.seed = seed},
      tokens_(config.task.vocabulary, config.width, initial_),
      positions_(config.task.length, config.width, initial_),
      norm_(config.width),
      head_({.in_features = config.width, .out_features = config.task.vocabulary}, initial_) {
  for (int64_t i = 0; i < config.num_layers; ++i) {
    MultiheadAttention attention(
        {.embed_dim = config.width, .num_heads = config.num_heads, .layout = Layout::kBatchFirst},
        initial_.bits());
    polyhead::ParameterGradients gradients(attention.state_dict());
    layers_.push_back({.norm = nn::LayerNorm(config.width),
                       .attention = std::move(attention),
                       .gradients = std::move(gradients)});
  }
}

nn::ParameterList Model::parameters() {
  nn::ParameterList all;
  all.append("tokens.", tokens_.parameters());
  all.append("positions.", positions_.parameters());
  for (size_t i = 0; i < layers_.size(); ++i) {
    const std::string prefix = "layers." + std::to_string(i) + ".";
    Layer& layer = layers_[i];
    all.append(prefix + "norm.", layer.norm.parameters());
    all.append(prefix + "attention.", nn::parameters_of(layer.attention, layer.gradients));
  }
  all.append("norm.", norm_.parameters());
  all.append("head.", head_.parameters());
  for (nn::Parameter& each : all) each.decays = each.value.rank() > 1;
  return all;
}

Tensor Model::embedded(const Tensor& tokens) const {
  Tensor x = tokens_.forward(tokens);  // [batch, length, width]
  nn::add_to(x, positions_.forward(positions_of(tokens)));
  return x;
}

double Model::backward_of_head(const Batch& batch, const Tensor& x, const TensorView& d_x) {
  const Tensor normed = norm_.forward(x);  // [batch, length, width]
  Tensor logits = head_.forward(normed);   // [batch, length, vocabulary]
  const double loss = nn::cross_entropy(logits, batch.targets, logits, kNoTarget);
  head_.backward(normed, logits, d_x);  // the logits have become their gradient
  norm_.backward(x, d_x, d_x);
  return loss;
}

double Model::loss_and_gradients(const Batch& batch) {
  Tensor x = embedded(batch.tokens);  // [batch, length, width]
  for (Layer& layer : layers_) {
    layer.normed = layer.norm.forward(x);
    Tensor out =
        layer.attention
            .forward(layer.normed, layer.normed, layer.normed, {.is_causal = true}, &layer.context)
            .out;
    nn::add_to(out, x);
    layer.x = std::move(x);
    x = std::move(out);
  }
  Tensor d_x(x.dtype(), x.shape()), d_normed(x.dtype(), x.shape());
  const double loss = backward_of_head(batch, x, d_x);
  for (auto layer = layers_.rbegin(); layer != layers_.rend(); ++layer) {
    const TensorView d_input = d_normed;  // query, key and value are one: their sum
    layer->attention.backward(layer->context, {.d_out = d_x},
                              {.d_query = d_input, .d_key = d_input, .d_value = d_input},
                              layer->gradients.views());
    layer->norm.backward(layer->x, d_input, d_input);
    nn::add_to(d_x, d_normed);
  }
  tokens_.backward(batch.tokens, d_x);
  positions_.backward(positions_of(batch.tokens), d_x);
  return loss;
}

std::vector<Tensor> Model::head_weights(const Tensor& tokens) const {
  std::vector<Tensor> weights;
  Tensor x = embedded(tokens);  // [batch, length, width]
  for (const Layer& layer : layers_) {
    const Tensor normed = layer.norm.forward(x);
    auto result = layer.attention.forward(
        normed, normed, normed,
        {.is_causal = true, .need_weights = polyhead::WeightsMode::kPerHead});
    nn::add_to(x, result.out);
    weights.push_back(std::move(result.weights));
  }
  return weights;
}

}  // namespace train
