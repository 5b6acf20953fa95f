// A model of two attention layers, put together as a program would: its gradients against central
// differences in double, and training that has the same bits for any threads and instruction set.
#include <deque>

#include <polyhead/runtime.h>
#include "nn/nn_test_tools.h"

namespace polyhead::nn {
namespace {

constexpr int64_t kVocabulary = 7, kWidth = 8, kLength = 6, kBatch = 2;

class Model {
 public:
  explicit Model(DType dtype, double dropout = 0)
      : tokens_(kVocabulary, kWidth, random_, dtype), norm_(kWidth, 0.00001, dtype) {
    for (uint64_t i = 0; i < 2; ++i) {
      MultiheadAttention attention({.embed_dim = kWidth,
                                    .num_heads = 2,
                                    .layout = Layout::kBatchFirst,
                                    .dropout = dropout,
                                    .dtype = dtype},
                                   /*seed=*/i);
      ParameterGradients gradients(attention.state_dict());
      layers_.push_back({std::move(attention), std::move(gradients)});
      layers_.back().context.dropout.seed = i;
    }
    head_ = std::make_unique<Linear>(
        Linear::Config{.in_features = kWidth, .out_features = kVocabulary, .dtype = dtype},
        random_);
  }

  ParameterList parameters() {
    ParameterList all;
    all.append("tokens.", tokens_.parameters());
    for (size_t i = 0; i < 2; ++i) {
      all.append(message("layers.", i, "."),
                 parameters_of(layers_[i].attention, layers_[i].gradients));
    }
    all.append("norm.", norm_.parameters());
    all.append("head.", head_->parameters());
    return all;
  }

  double loss(const Tensor& ids, const Tensor& targets) {
    x_ = tokens_.forward(ids);
    for (Layer& layer : layers_) {
      layer.x = x_;
      const Tensor& in = layer.x;
      add_to(x_, layer.attention.forward(in, in, in, {.is_causal = true}, &layer.context).out);
    }
    y_ = norm_.forward(x_);
    logits_ = head_->forward(y_);
    return cross_entropy(logits_, targets, logits_);
  }

  // After loss.
  void backward(const Tensor& ids) {
    Tensor d_x(x_.dtype(), x_.shape()), d_in(x_.dtype(), x_.shape());
    head_->backward(y_, logits_, d_x);
    norm_.backward(x_, d_x, d_x);
    for (auto layer = layers_.rbegin(); layer != layers_.rend(); ++layer) {
      const TensorView to = d_in;
      layer->attention.backward(layer->context, {.d_out = d_x},
                                {.d_query = to, .d_key = to, .d_value = to},
                                layer->gradients.views());
      add_to(d_x, d_in);
    }
    tokens_.backward(ids, d_x);
  }

 private:
  struct Layer {
    MultiheadAttention attention;
    ParameterGradients gradients;
    TrainingContext context = {};
    Tensor x = {};
  };

  Random random_{.seed = 1};
  Embedding tokens_;
  std::deque<Layer> layers_;
  LayerNorm norm_;
  std::unique_ptr<Linear> head_;
  Tensor x_, y_, logits_;
};

TEST(Model, GradientsAgreeWithCentralDifferences) {
  Model model(DType::kFloat64);
  const Tensor ids = random_ids({kBatch, kLength}, kVocabulary, 1);
  const Tensor targets = random_ids({kBatch, kLength}, kVocabulary, 2);
  const ParameterList parameters = model.parameters();
  model.loss(ids, targets);
  model.backward(ids);
  for (const Parameter& each : parameters) {
    const auto loss = [&] {
      parameters.updated();
      return model.loss(ids, targets);
    };
    expect_gradient(loss, each.value, each.gradient, each.name);
  }
}

std::vector<Tensor> trained(double dropout) {
  Model model(DType::kFloat32, dropout);
  const Tensor ids = random_ids({kBatch, kLength}, kVocabulary, 1);
  const Tensor targets = random_ids({kBatch, kLength}, kVocabulary, 2);
  AdamW optimizer(model.parameters(), {.learning_rate = 0.03});
  double first = 0, last = 0;
  for (int step = 0; step < 20; ++step) {
    last = model.loss(ids, targets);
    if (step == 0) first = last;
    model.backward(ids);
    clip_gradient_norm(optimizer.parameters(), 1);
    optimizer.step();
  }
  EXPECT_LT(last, first / 2);  // so the new values are those that the next forward uses
  std::vector<Tensor> values;
  for (const Parameter& each : optimizer.parameters()) values.emplace_back(each.value);
  return values;
}

TEST(Model, TrainingHasTheSameBitsForAnyThreadsAndIsa) {
  const int before = num_threads();
  for (const double dropout : {0.0, 0.1}) {
    const std::vector<Tensor> expected = trained(dropout);
    for (const std::string& name : available_isas()) {
      if (name == "baseline") continue;
      force_isa(name);
      for (const int threads : {1, 2, 3, 7}) {
        set_num_threads(threads);
        const std::vector<Tensor> got = trained(dropout);
        for (size_t i = 0; i < got.size(); ++i) {
          oracle::expect_same_bits(got[i], expected[i], message(name, " threads ", threads));
        }
      }
    }
    force_isa(available_isas().front());
    set_num_threads(before);
  }
}

}  // namespace
}  // namespace polyhead::nn
