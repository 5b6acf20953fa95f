#include "demo/proof.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>
#include <set>

#include "base/message.h"
#include "comparison.h"
#include "kernels/fma_peak.h"
#include "module/module_reference.h"
#include "report/sha256.h"
#include "simd/isa.h"

namespace polyhead::cli {
namespace {

std::string rounded(double x, const char* format) {
  char text[40];
  std::snprintf(text, sizeof text, format, x);
  return text;
}

// What threads and ISA were, put back at the end of the scope.
class RuntimeGuard {
 public:
  RuntimeGuard() = default;
  ~RuntimeGuard() {
    set_num_threads(threads_);
    force_isa(isa_);
  }
  RuntimeGuard(const RuntimeGuard&) = delete;
  RuntimeGuard& operator=(const RuntimeGuard&) = delete;

 private:
  int threads_ = num_threads();
  std::string isa_ = isa();
};

std::string hash_of(const Encoding& encoding) {
  Sha256 hash;
  const auto add = [&](const Tensor& x) {
    hash.update(x.data(), static_cast<size_t>(x.numel()) * dtype_bytes(x.dtype()));
  };
  for (const Tensor& hidden : encoding.hidden_states) add(hidden);
  for (const Tensor& weights : encoding.weights) add(weights);
  return hex(hash.finish());
}

double seconds_now() {
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

}  // namespace

ProofLine prove_same_bits(const BertEncoder& encoder, const TokenBatch& batch) {
  const RuntimeGuard guard;
  std::set<std::string> hashes;
  std::string tried;
  for (const std::string& name : available_isas()) {
    if (name == "baseline" && available_isas().size() > 1) continue;  // no fused multiply-add
    force_isa(name);
    tried += (tried.empty() ? "" : ", ") + name;
    for (const int threads : {1, 2}) {
      set_num_threads(threads);
      hashes.insert(hash_of(encoder.run(batch)));
    }
  }
  const bool same = hashes.size() == 1;
  const std::string what = message("1 and 2 threads, ", tried);
  if (!same) return {false, message("different bits: ", hashes.size(), " hashes on ", what)};
  return {true, message("same bits on ", what, ": sha256 ", *hashes.begin())};
}

ProofLine prove_accuracy(const BertEncoder& encoder, const TokenBatch& batch,
                         const Encoding& encoding) {
  // The reference is plain loops in double: a second's worth of tokens, from the start of each.
  constexpr int64_t kMaxLen = 64, kMaxTokens = 128;
  const int64_t len = std::min(batch.len, kMaxLen);
  const int64_t items = std::min(batch.batch(), std::max<int64_t>(1, kMaxTokens / len));
  const auto part = [&](const Tensor& x) { return x.view().narrow(0, 0, items).narrow(1, 0, len); };
  double worst_share = 0;
  int64_t numbers = 0, nans = 0;
  for (int64_t l = 0; l < encoder.config().num_layers; ++l) {
    const ConstTensorView in = part(encoding.hidden_states[static_cast<size_t>(l)]);
    const ForwardOptions options = {.key_padding_mask = part(batch.padding),
                                    .need_weights = WeightsMode::kPerHead};
    const MultiheadAttention& attention = encoder.attention(l);
    const auto result = attention.forward(in, in, in, options);
    const ModuleReference truth = module_forward_reference(attention, in, in, in, options);
    for (const Comparison& c : {compare(result.out, truth.out, truth.out_budget),
                                compare(result.weights, truth.weights, truth.weights_budget)}) {
      numbers += c.count;
      nans += c.both_nan;
      if (!(c.worst_share <= worst_share)) worst_share = c.worst_share;
    }
  }
  if (nans > 0) {
    return {false, message(nans, " of ", numbers, " outputs and weights are NaN, in the double ",
                           "reference too: the model's weights are not numbers")};
  }
  return {worst_share <= 1, message("worst error of all layers against the double reference: ",
                                    rounded(100 * worst_share, "%.1f"), " % of the error budget (",
                                    numbers, " outputs and weights)")};
}

ProofLine prove_empty_row(const BertEncoder& encoder, const Encoding& encoding) {
  const int64_t len = encoding.hidden_states[0].size(1);
  const ConstTensorView in = encoding.hidden_states[0].view().narrow(0, 0, 1);  // [1, len, E]
  Tensor mask(DType::kBool, {len, len});
  std::fill_n(mask.data_as<bool>(), len, true);  // the first query sees no key
  const auto result = encoder.attention(0).forward(
      in, in, in, {.attn_mask = mask, .need_weights = WeightsMode::kPerHead});
  const auto finite = [](const Tensor& x) {
    const auto* data = x.data_as<float>();
    return std::all_of(data, data + x.numel(), [](float value) { return std::isfinite(value); });
  };
  double row_mass = 0;
  for (int64_t head = 0; head < result.weights.size(1); ++head) {
    const ConstTensorView row = result.weights.view().select(0, 0).select(0, head).select(0, 0);
    for (int64_t key = 0; key < len; ++key) row_mass += row.data_as<float>()[key];
  }
  const bool holds = finite(result.out) && finite(result.weights) && row_mass == 0;
  return {holds, holds ? "a query with every key masked: weights 0, output finite, no NaN"
                       : "a query with every key masked spoils the result"};
}

ProofLine measure_speed(const BertEncoder& encoder) {
  const RuntimeGuard guard;
  set_num_threads(1);
  const BertConfig& config = encoder.config();
  const int64_t len = config.max_len, head_dim = config.embed_dim / config.num_heads;
  Tensor query(DType::kFloat32, {1, config.num_heads, len, head_dim}), key(query), value(query),
      out(query);
  for (Tensor* x : {&query, &key, &value}) {
    auto* data = x->data_as<float>();
    for (int64_t i = 0; i < x->numel(); ++i) data[i] = static_cast<float>(i * 37 % 101) / 50 - 1;
  }
  // Turn about, in slices so short that most escape what else the machine does; the best of each.
  constexpr double kSeconds = 0.4, kSlice = 0.003;
  constexpr int kRounds = 20;
  double peak = 0, best_seconds = std::numeric_limits<double>::infinity();
  const double end = seconds_now() + kSeconds;
  for (int round = 0; round < kRounds || seconds_now() < end; ++round) {
    peak = std::max(peak, fma_peak_gflops(active_isa(), kSlice));
    const double begin = seconds_now();
    attention_forward(query, key, value, {}, {.out = out});
    best_seconds = std::min(best_seconds, seconds_now() - begin);
  }
  // Two products of [len, head_dim] x [head_dim, len] a head; the softmax is not counted.
  const double flops = 4.0 * static_cast<double>(config.num_heads * len * len * head_dim);
  const double rate = flops / best_seconds / 1e9;
  const std::string share =
      rate <= peak ? message(rounded(100 * rate / peak, "%.0f"),
                             " % of the FMA peak measured beside it (", rounded(peak, "%.1f"), ")")
                   : "the machine is too busy to measure its FMA peak";
  return {true, message("attention over ", len, " tokens, ", config.num_heads, " heads of ",
                        head_dim, ", one thread, ", isa(), ": at best ", rounded(rate, "%.1f"),
                        " GFLOP/s, ", share)};
}

}  // namespace polyhead::cli
