// attention_forward on the cell's query, key and value.
#include <array>
#include <stdexcept>

#include <polyhead/attention.h>
#include "bench/worker/files.h"
#include "bench/worker/problem.h"

namespace polyhead::bench {
namespace {

class AttentionProblem final : public Problem {
 public:
  explicit AttentionProblem(const Words& words) : heads_inner_(words.text("layout") == "BLHD") {
    const std::string folder = words.text("folder");
    query_ = read_tensor(folder + "/query.f32", DType::kFloat32, shape(words, "q_len"));
    key_ = read_tensor(folder + "/key.f32", DType::kFloat32, shape(words, "kv_len"));
    value_ = read_tensor(folder + "/value.f32", DType::kFloat32, shape(words, "kv_len"));
    out_ = Tensor(DType::kFloat32, query_.shape());
    outputs_.out = heads_outer(out_.view());
    if (words.text("mask") == "causal") {
      options_.masks = {Mask::causal()};
    } else if (words.text("mask") != "none") {
      throw std::runtime_error("attention: mask: must be none or causal");
    }
  }

  void run() override {
    attention_forward(heads_outer(ConstTensorView(query_)), heads_outer(ConstTensorView(key_)),
                      heads_outer(ConstTensorView(value_)), options_, outputs_);
  }

  void write(const std::string& prefix) const override { write_tensor(prefix + ".out.f32", out_); }

 private:
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
  AttentionOptions options_;
  AttentionOutputs outputs_;
};

}  // namespace

std::unique_ptr<Problem> make_attention(const Words& words) {
  return std::make_unique<AttentionProblem>(words);
}

}  // namespace polyhead::bench
