// A transformer of attention alone: no MLP, as in the studies of induction heads.
//
//   x = tokens[ids] + positions[0 .. length-1]
//   x = x + attention(norm(x))                    for each layer, causal
//   logits = head(norm(x))
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include <polyhead/nn.h>
#include "task.h"

namespace train {

struct ModelConfig {
  Task task = {};
  int64_t width = 128, num_heads = 4, num_layers = 2;
};

// Parameters have torch's names and shapes, so that a checkpoint is a state dict of the same model.
class Model {
 public:
  Model(const ModelConfig& config, uint64_t seed);
  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  // The mean loss over the tokens that are asked for; overwrites every gradient.
  double loss_and_gradients(const Batch& batch);
  // Of each layer, every head's: [batch, num_heads, length, length]
  std::vector<polyhead::Tensor> head_weights(const polyhead::Tensor& tokens) const;
  // Weight decay is for matrices.
  polyhead::nn::ParameterList parameters();

 private:
  struct Layer {
    polyhead::nn::LayerNorm norm;
    polyhead::MultiheadAttention attention;
    polyhead::ParameterGradients gradients;
    polyhead::TrainingContext context = {};
    polyhead::Tensor x = {}, normed = {};  // [batch, length, width], what came in
  };

  polyhead::Tensor embedded(const polyhead::Tensor& tokens) const;
  double backward_of_head(const Batch& batch, const polyhead::Tensor& x,
                          const polyhead::TensorView& d_x);

  ModelConfig config_;
  polyhead::nn::Random initial_;
  polyhead::nn::Embedding tokens_, positions_;
  std::deque<Layer> layers_;  // never moved: parameters() points into them
  polyhead::nn::LayerNorm norm_;
  polyhead::nn::Linear head_;
};

}  // namespace train
