// attention_forward on the cell's query, key and value, and attention_backward after it.
#include <array>
#include <stdexcept>

#include <polyhead/attention.h>
#include "bench/worker/files.h"
#include "bench/worker/problem.h"

namespace polyhead::bench {
namespace {

class AttentionProblem : public Problem {
 public:
  explicit AttentionProblem(const Words& words) : heads_inner_(words.text("layout") == "BLHD") {
    const std::string folder = words.text("folder");
    query_ = read_tensor(folder + "/query.f32", DType::kFloat32, shape(words, "q_len"));
    key_ = read_tensor(folder + "/key.f32", DType::kFloat32, shape(words, "kv_len"));
    value_ = read_tensor(folder + "/value.f32", DType::kFloat32, shape(words, "kv_len"));
    operands_ = {heads_outer(ConstTensorView(query_)), heads_outer(ConstTensorView(key_)),
                 heads_outer(ConstTensorView(value_))};
    out_ = Tensor(DType::kFloat32, query_.shape());
    outputs_.out = heads_outer(out_.view());
    if (words.text("mask") == "causal") {
      options_.masks = {Mask::causal()};
    } else if (words.text("mask") != "none") {
      throw std::runtime_error("attention: mask: must be none or causal");
    }
  }

  void run() override {
    attention_forward(operands_[0], operands_[1], operands_[2], options_, outputs_);
  }

  void write(const std::string& prefix) const override { write_tensor(prefix + ".out.f32", out_); }

 protected:
  // In memory order.
  std::array<int64_t, 4> shape(const Words& words, const std::string& length) const {
    const int64_t batch = words.number("batch"), heads = words.number("heads");
    const int64_t len = words.number(length), head_dim = words.number("head_dim");
    if (heads_inner_) return {batch, len, heads, head_dim};
    return {batch, heads, len, head_dim};
  }

  // [B, H, L, D], whatever the memory order.
  template <class View>
  View heads_outer(View view) const {
    return heads_inner_ ? view.transposed(1, 2) : view;
  }

  bool heads_inner_;
  Tensor query_, key_, value_, out_;
  std::array<ConstTensorView, 3> operands_;
  AttentionOptions options_;
  AttentionOutputs outputs_;
};

// With the gradients of query, key and value.
class TrainAttentionProblem final : public AttentionProblem {
 public:
  explicit TrainAttentionProblem(const Words& words) : AttentionProblem(words) {
    d_out_ = read_tensor(words.text("folder") + "/d_out.f32", DType::kFloat32, out_.shape());
    lse_ = Tensor(DType::kFloat32,
                  {words.number("batch"), words.number("heads"), words.number("q_len")});
    d_query_ = Tensor(DType::kFloat32, query_.shape());
    d_key_ = Tensor(DType::kFloat32, key_.shape());
    d_value_ = Tensor(DType::kFloat32, value_.shape());
    outputs_.lse = lse_;
    inputs_ = {.out = outputs_.out, .lse = lse_, .d_out = heads_outer(ConstTensorView(d_out_))};
    gradients_ = {.d_query = heads_outer(d_query_.view()),
                  .d_key = heads_outer(d_key_.view()),
                  .d_value = heads_outer(d_value_.view())};
  }

  void run() override {
    AttentionProblem::run();
    attention_backward(operands_[0], operands_[1], operands_[2], options_, inputs_, gradients_);
  }

  void write(const std::string& prefix) const override {
    AttentionProblem::write(prefix);
    write_tensor(prefix + ".d_query.f32", d_query_);
    write_tensor(prefix + ".d_key.f32", d_key_);
    write_tensor(prefix + ".d_value.f32", d_value_);
  }

 private:
  Tensor d_out_, lse_, d_query_, d_key_, d_value_;
  AttentionBackwardInputs inputs_;
  AttentionGradients gradients_;
};

}  // namespace

std::unique_ptr<Problem> make_attention(const Words& words) {
  return std::make_unique<AttentionProblem>(words);
}

std::unique_ptr<Problem> make_train_attention(const Words& words) {
  return std::make_unique<TrainAttentionProblem>(words);
}

}  // namespace polyhead::bench
