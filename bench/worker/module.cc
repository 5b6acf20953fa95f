// MultiheadAttention::forward_into with the cell's weights and inputs, and backward after it,
// through the public API alone.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <sstream>
#include <stdexcept>
#include <vector>

#include <polyhead/multihead_attention.h>
#include "bench/worker/files.h"
#include "bench/worker/problem.h"

namespace polyhead::bench {
namespace {

MultiheadAttention make_mha(const Words& words) {
  MultiheadAttention mha({.embed_dim = words.number("embed_dim"),
                          .num_heads = words.number("num_heads"),
                          .layout = Layout::kBatchFirst,
                          .kdim = words.number("kdim"),
                          .vdim = words.number("vdim")});
  for (const auto& [name, view] : mha.state_dict()) {
    mha.set_parameter(
        name, read_tensor(words.text("folder") + "/" + name + ".f32", view.dtype(), view.shape()));
  }
  return mha;
}

class ModuleProblem : public Problem {
 public:
  explicit ModuleProblem(const Words& words) : mha_(make_mha(words)) {
    const int64_t batch = words.number("batch"), kv_len = words.number("kv_len");
    const std::string inputs = words.text("inputs");
    query_ = read(words, "query.f32", DType::kFloat32,
                  {batch, words.number("q_len"), words.number("embed_dim")});
    if (inputs != "self") {
      key_ = read(words, "key.f32", DType::kFloat32, {batch, kv_len, words.number("kdim")});
    }
    if (inputs == "separate") {
      value_ = read(words, "value.f32", DType::kFloat32, {batch, kv_len, words.number("vdim")});
    }
    key_view_ = inputs == "self" ? query_.view() : key_.view();
    value_view_ = inputs == "separate" ? value_.view() : key_view_;
    out_ = Tensor(DType::kFloat32, query_.shape());
    take_masks(words);
    take_weights(words);
  }

  void run() override {
    mha_.forward_into(query_, key_view_, value_view_, options_, out_, weights_);
  }

  void write(const std::string& prefix) const override {
    write_tensor(prefix + ".out.f32", out_);
    if (weights_.defined()) write_tensor(prefix + ".weights.f32", weights_);
  }

 protected:
  static Tensor read(const Words& words, const std::string& name, DType dtype,
                     std::initializer_list<int64_t> shape) {
    return read_tensor(words.text("folder") + "/" + name, dtype,
                       Shape(shape.begin(), shape.size()));
  }

 private:
  void take_masks(const Words& words) {
    const std::string mask = words.text("mask");
    const int64_t q_len = words.number("q_len"), kv_len = words.number("kv_len");
    if (mask == "float") mask_ = read(words, "mask.f32", DType::kFloat32, {q_len, kv_len});
    if (mask == "bool") mask_ = read(words, "mask.u8", DType::kBool, {q_len, kv_len});
    if (mask == "padding") {
      padding_ = read(words, "mask.u8", DType::kBool, {words.number("batch"), kv_len});
    }
    options_.is_causal = mask == "causal";
    options_.attn_mask = mask_;
    options_.key_padding_mask = padding_;
  }

  void take_weights(const Words& words) {
    const std::string weights = words.text("weights");
    const int64_t batch = words.number("batch"), heads = words.number("num_heads");
    const int64_t q_len = words.number("q_len"), kv_len = words.number("kv_len");
    if (weights == "average") {
      options_.need_weights = WeightsMode::kAverage;
      weights_ = Tensor(DType::kFloat32, {batch, q_len, kv_len});
    } else if (weights == "per_head") {
      options_.need_weights = WeightsMode::kPerHead;
      weights_ = Tensor(DType::kFloat32, {batch, heads, q_len, kv_len});
    }
  }

  Tensor key_, value_, mask_, padding_;

 protected:
  MultiheadAttention mha_;
  Tensor query_, out_, weights_;
  ConstTensorView key_view_, value_view_;
  ForwardOptions options_;
};

// Self-attention with the gradients of its input and of every parameter. Every step packs the
// weights anew, as if the one before had changed them.
class TrainModuleProblem final : public ModuleProblem {
 public:
  explicit TrainModuleProblem(const Words& words)
      : ModuleProblem(words), gradients_(mha_.state_dict()) {
    d_query_ = Tensor(DType::kFloat32, query_.shape());
    d_out_ = read_tensor(words.text("folder") + "/d_out.f32", DType::kFloat32, out_.shape());
    if (weights_.defined()) {
      d_weights_ =
          read_tensor(words.text("folder") + "/d_weights.f32", DType::kFloat32, weights_.shape());
    }
  }

  void run() override {
    mha_.repack();
    mha_.forward_into(query_, query_, query_, options_, {.out = out_, .weights = weights_},
                      &context_);
    mha_.backward(context_, {.d_out = d_out_, .d_weights = d_weights_},
                  {.d_query = d_query_, .d_key = d_query_, .d_value = d_query_},
                  gradients_.views());
  }

  void write(const std::string& prefix) const override {
    ModuleProblem::write(prefix);
    write_tensor(prefix + ".d_query.f32", d_query_);
    for (const auto& [name, view] : gradients_.views()) {
      write_tensor(prefix + ".d_" + name + ".f32", view);
    }
  }

 private:
  TrainingContext context_;
  Tensor d_out_, d_weights_, d_query_;
  ParameterGradients gradients_;
};

double seconds_of(const auto& work) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  work();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

std::unique_ptr<Problem> make_module(const Words& words) {
  return std::make_unique<ModuleProblem>(words);
}

std::unique_ptr<Problem> make_train_module(const Words& words) {
  return std::make_unique<TrainModuleProblem>(words);
}

// Changing one bias packs all weights again, at once or at the next forward: both are counted, less
// a forward that packs nothing. One query, so that little of it is work.
std::string time_packing(const Words& words) {
  MultiheadAttention mha = make_mha(words);
  const int64_t embed_dim = words.number("embed_dim");
  const Tensor x(DType::kFloat32, {1, 1, embed_dim}), bias(DType::kFloat32, {embed_dim});
  Tensor out(DType::kFloat32, {1, 1, embed_dim});
  const auto forward = [&] { mha.forward_into(x, x, x, {}, out); };
  size_t bytes = 0;
  for (const auto& [name, view] : mha.state_dict()) {
    if (view.rank() == 2) bytes += static_cast<size_t>(view.numel()) * sizeof(float);
  }
  std::vector<char> from(bytes, 1), to(bytes, 2);
  std::ostringstream reply;
  reply << "{\"bytes\": " << bytes;
  forward();
  const double steady = seconds_of(forward);
  const double packing = seconds_of([&] {
    mha.set_parameter("out_proj.bias", bias);
    forward();
  });
  const double copying = seconds_of([&] { std::memcpy(to.data(), from.data(), bytes); });
  reply << ", \"pack_seconds\": " << std::max(packing - steady, 0.0)
        << ", \"copy_seconds\": " << copying << ", \"last\": " << static_cast<int>(to.back())
        << "}";
  return reply.str();
}

}  // namespace polyhead::bench
