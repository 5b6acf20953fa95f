// torch.nn.MultiheadAttention in C++: same parameters, same state dict, same numbers.
//
//   auto mha = MultiheadAttention::load("layer.safetensors", {.num_heads = 8,
//                                       .layout = Layout::kBatchFirst});
//   Tensor out = mha.forward(x, x, x, {.is_causal = true}).out;
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <polyhead/attention.h>
#include <polyhead/kv_cache.h>
#include <polyhead/rope.h>
#include <polyhead/tensor_view.h>
#include <polyhead/training.h>

#pragma GCC visibility push(default)
namespace polyhead {

// Of 3-D inputs. It must be said: torch's default is sequence first, and a wrong guess is silent.
enum class Layout { kUnset, kBatchFirst, kSequenceFirst };

// Names in the file -> names of ours ("attention.self.query.weight" -> "q_proj_weight").
using NameMap = std::map<std::string, std::string>;
namespace name_maps {
NameMap bert();   // attention.self.{query,key,value}, attention.output.dense
NameMap vit();    // attention.attention.{query,key,value}, attention.output.dense
NameMap llama();  // {q,k,v,o}_proj, without biases
}  // namespace name_maps

struct LoadOptions {
  // 0: taken from the file's __metadata__ "num_heads"; another than the file's is refused.
  int64_t num_heads = 0;
  // How the module is called: what is given holds, what is not is as the file's __metadata__ says.
  // The layout must be said by one of the two; where neither does, add_zero_attn is false, dropout
  // 0.
  Layout layout = Layout::kUnset;
  std::string prefix =
      {};  // "encoder.layers.0.self_attn."; empty: found if the file holds one module
  std::optional<bool> add_zero_attn = {};
  std::optional<double> dropout = {};
  NameMap names = {};
  // What tensors do not tell; not given: the file's __metadata__, or none. Another than the file's
  // is refused.
  Rope rope = {};
  std::optional<double> qk_norm_eps = {};
};

struct ForwardOptions {
  // [L, S], [B*H, L, S] (slice b*H + h) or broadcastable 4-D [1|B, 1|H, 1|L, 1|S]; unbatched also
  // [H, L, S]. kBool: true = hidden. float: added to the scaled scores.
  ConstTensorView attn_mask = {};
  ConstTensorView key_padding_mask =
      {};                  // [B, S], unbatched [S]; kBool: true = hidden, or float: added
  bool is_causal = false;  // in addition to the masks
  CausalAlign causal_align = CausalAlign::kTopLeft;
  WeightsMode need_weights = WeightsMode::kNone;
  EmptyRow empty_rows = EmptyRow::kZero;
  // Of the first query and key, with Config::rope. A causal mask aligned top left wants equal ones.
  int64_t query_position = 0, key_position = 0;
};

// Of forward_cached.
struct CachedForwardOptions {
  // int32 or int64 [B]: sequence b gets the first lengths[b] of the n tokens, none being fine. The
  // rest is not looked at, and 0 in out. Undefined: all.
  ConstTensorView lengths = {};
  int64_t sequence = 0;  // the one whose tokens an unbatched query is
};

// The caller's memory for a forward's results; weights undefined unless asked for.
struct ForwardOutputs {
  TensorView out = {}, weights = {};
};

// What was moved from may only be destroyed or assigned to.
class MultiheadAttention {
 public:
  struct Config {
    int64_t embed_dim = 0, num_heads = 0;
    Layout layout = Layout::kUnset;
    bool bias = true, add_bias_kv = false, add_zero_attn = false;
    int64_t kdim = 0, vdim = 0;  // 0: embed_dim
    double dropout = 0;          // on the weights, in training only
    DType dtype = DType::kFloat32;
    // What torch's class has not. Fewer heads of key and value than of query, of which each serves
    // num_heads / num_kv_heads neighbours; 0: num_heads. Heads of any width; 0: embed_dim /
    // num_heads.
    int64_t num_kv_heads = 0, head_dim = 0;
    // Between projection and scores: each head of query and key through an RMS norm of its own
    // (parameters q_norm.weight, k_norm.weight), then turned by its position. What bias_k and the
    // zero row append takes part in neither.
    bool qk_norm = false;
    double qk_norm_eps = 1e-6;
    Rope rope = {};
  };
  struct Result {
    Tensor out, weights;  // weights undefined unless asked for
  };

  // torch's initialisation (same distributions, our own generator).
  explicit MultiheadAttention(const Config& config, uint64_t seed = 0);
  static MultiheadAttention load(const std::string& path, const LoadOptions& options = {});
  // torch's state-dict names, shapes and order, then q_norm.weight, k_norm.weight; into
  // __metadata__ what these do not tell: num_heads, batch_first, add_zero_attn, dropout, and what
  // torch's class has not, where it is used.
  void save(const std::string& path, const std::string& prefix = "") const;

  // query [B, L, E] key [B, S, kdim] value [B, S, vdim], or sequence first, or 2-D unbatched.
  // out as query; weights [B, L, S'] or [B, H, L, S'], S' = S + add_bias_kv + add_zero_attn.
  // Safe from many threads.
  Result forward(const ConstTensorView& query, const ConstTensorView& key,
                 const ConstTensorView& value, const ForwardOptions& options = {}) const;
  // Into the caller's memory, any strides; allocates nothing after the first call of a shape.
  void forward_into(const ConstTensorView& query, const ConstTensorView& key,
                    const ConstTensorView& value, const ForwardOptions& options,
                    const TensorView& out, const TensorView& weights = {}) const;

  // A forward of training: Config::dropout applies, and *context keeps what backward needs. The
  // same bits as above where there is no dropout.
  Result forward(const ConstTensorView& query, const ConstTensorView& key,
                 const ConstTensorView& value, const ForwardOptions& options,
                 TrainingContext* context) const;
  void forward_into(const ConstTensorView& query, const ConstTensorView& key,
                    const ConstTensorView& value, const ForwardOptions& options,
                    const ForwardOutputs& outputs, TrainingContext* context) const;
  // Of the last forward with this context, by this module with the parameters it still has. An
  // empty list, or an undefined view in it: not wanted. `mode` is that of the parameters;
  // kAccumulate adds the finished gradient. Safe from many threads; may be called again for other
  // outputs.
  void backward(const TrainingContext& context, const OutputGradients& outputs,
                const InputGradients& inputs, const ParameterViews& parameters = {},
                GradientMode mode = GradientMode::kOverwrite) const;

  // The next tokens of a decoder, its prompt or one token after the other:
  //
  //   KvCache cache(mha.cache_config(batch, num_pages));
  //   Tensor out = mha.forward_cached(prompt, &cache);       // [B, n, E]
  //   out = mha.forward_cached(token, &cache);               // [B, 1, E], and so on
  //
  // query [B, n, E], or sequence first, or 2-D unbatched, B the cache's: behind the positions that
  // each sequence has. Projected, normalised and turned at these positions, their keys and values
  // are appended, and each sees those up to its own that the cache's window leaves: out [B, n, E]
  // has the bits of a forward over the whole sequences with is_causal, in whatever pieces they
  // come. If it throws, the cache is as it was: InvalidArgument, out of pages too, or
  // std::bad_alloc. Safe from many threads, each with a cache of its own.
  //
  // Not for modules with add_bias_kv or add_zero_attn, nor whose kdim or vdim is not embed_dim.
  Tensor forward_cached(const ConstTensorView& query, KvCache* cache,
                        const CachedForwardOptions& options = {}) const;
  // Into the caller's memory, any strides; that of query, too, which is read before.
  void forward_cached_into(const ConstTensorView& query, KvCache* cache,
                           const CachedForwardOptions& options, const TensorView& out) const;
  // That of a cache for this module; page_len and window may be changed. InvalidArgument for a
  // module that cannot have one, and unless batch and num_pages are at least 1.
  KvCache::Config cache_config(int64_t batch, int64_t num_pages) const;

  const Config& config() const;
  // State dict in torch's order. Views stay valid as long as the module.
  std::vector<std::pair<std::string, ConstTensorView>> state_dict() const;
  // Copies new values in (shape and dtype must match), then repacks.
  void set_parameter(const std::string& name, const ConstTensorView& value);
  // The same memory, for an optimiser to write to. What is written counts from the next repack()
  // on, and until then must not meet another call.
  ParameterViews parameters();
  void repack();

  MultiheadAttention(MultiheadAttention&&) noexcept;
  MultiheadAttention& operator=(MultiheadAttention&&) noexcept;
  ~MultiheadAttention();

 private:
  struct Impl;
  explicit MultiheadAttention(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// How wide each head is: embed_size / num_heads, as in the PyTorch class below, or embed_size.
enum class HeadWidth { kSplit, kFull };

// The PyTorch class that the README shows, written from scratch: q_linear, k_linear, v_linear,
// fc_out; batch first only. What was moved from may only be destroyed or assigned to.
class FromScratchMultiHeadAttention {
 public:
  FromScratchMultiHeadAttention(int64_t embed_size, int64_t num_heads,
                                HeadWidth width = HeadWidth::kSplit, uint64_t seed = 0,
                                DType dtype = DType::kFloat32);
  // Split or full width is read from the shape of q_linear.weight. `layout` in options is ignored.
  static FromScratchMultiHeadAttention load(const std::string& path,
                                            const LoadOptions& options = {});
  void save(const std::string& path, const std::string& prefix = "") const;

  // q [B, L, E]  k, v [B, S, E]  ->  [B, L, E]. The mask (any number type, broadcast right-aligned
  // onto [B, H, L, S]) is multiplied by -1e5 and added to the scores: 1 hides, softly.
  Tensor forward(const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& v,
                 const ConstTensorView& mask = {}) const;
  // Into the caller's memory; weights undefined, [B, L, S] (averaged) or [B, H, L, S].
  void forward_into(const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& v,
                    const ConstTensorView& mask, const TensorView& out,
                    const TensorView& weights = {}) const;

  // Training, as of the class above; there is no dropout here.
  Tensor forward(const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& v,
                 const ConstTensorView& mask, TrainingContext* context) const;
  void forward_into(const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& v,
                    const ConstTensorView& mask, const ForwardOutputs& outputs,
                    TrainingContext* context) const;
  void backward(const TrainingContext& context, const OutputGradients& outputs,
                const InputGradients& inputs, const ParameterViews& parameters = {},
                GradientMode mode = GradientMode::kOverwrite) const;

  int64_t embed_size() const;
  int64_t num_heads() const;
  HeadWidth head_width() const;
  DType dtype() const;
  std::vector<std::pair<std::string, ConstTensorView>> state_dict() const;
  void set_parameter(const std::string& name, const ConstTensorView& value);
  ParameterViews parameters();
  void repack();

  FromScratchMultiHeadAttention(FromScratchMultiHeadAttention&&) noexcept;
  FromScratchMultiHeadAttention& operator=(FromScratchMultiHeadAttention&&) noexcept;
  ~FromScratchMultiHeadAttention();

 private:
  struct Impl;
  explicit FromScratchMultiHeadAttention(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace polyhead
#pragma GCC visibility pop
