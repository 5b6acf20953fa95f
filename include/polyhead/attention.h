// Scaled dot-product attention over heads, without a module around it.
//
//   AttentionOptions options;
//   options.masks = {Mask::causal()};
//   attention_forward(query, key, value, options, {.out = out});   // float32 or float64
//
// query [B, H, L, D]  key [B, Hkv, S, D]  value [B, Hkv, S, Dv]  ->  out [B, H, L, Dv]
//   out = softmax(scale * query . key^T + masks) . value
// H must be a multiple of Hkv: head h reads key/value head h / (H / Hkv). Views may have any
// strides, so [B, L, H, D] data is passed as view.transposed(1, 2) without a copy.
//
// The bits of a row depend on nothing but that row's query, keys, values and masks: not on threads,
// batch, trailing padding, chunking of the queries, on weights being asked for, nor on the ISA
// (of those with fused multiply-add). With dropout they depend on the row's place in the call too:
// its batch item, head and query index.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <polyhead/score_mod.h>
#include <polyhead/tensor_view.h>

#pragma GCC visibility push(default)
namespace polyhead {

// What `true` in a boolean mask means: nn.MultiheadAttention / scaled_dot_product_attention.
enum class MaskSense { kExcluded, kIncluded };
// Query i sees key j if j <= i (top left), or j <= i + S - L (bottom right, for a KV cache).
enum class CausalAlign { kTopLeft, kBottomRight };

// Where the queries stand among the keys: query i at key i + offset. Top left: offset 0. Bottom
// right: the last query stands at the last key of its batch item, which key lengths may bring
// forward. Or a number: with 100 keys of the past in front, 100. Over a KvCache both alignments
// stand for the queries' positions, and a number for itself, 0 too.
class QueryOffset {
 public:
  QueryOffset(CausalAlign align) : align_(align) {}  // NOLINT(google-explicit-constructor)
  QueryOffset(int64_t offset)                        // NOLINT(google-explicit-constructor)
      : is_number_(true), offset_(offset) {}

  // Of a batch item with so many queries and keys.
  int64_t of(int64_t q_len, int64_t kv_len) const {
    return align_ == CausalAlign::kTopLeft ? offset_ : kv_len - q_len;
  }
  bool is_number() const { return is_number_; }
  int64_t number() const { return offset_; }  // 0 if it is none

 private:
  CausalAlign align_ = CausalAlign::kTopLeft;
  bool is_number_ = false;
  int64_t offset_ = 0;
};
// A row with every key masked: output and weights 0, or NaN as torch's weights path gives.
// Without any key (S = 0) the output is 0 under either.
enum class EmptyRow { kZero, kNan };
enum class WeightsMode { kNone, kAverage, kPerHead };

// One mask. Options hold a list: additive masks are summed first (in the query's dtype, in list
// order), then added to the scaled scores; a pair is masked if any of the other masks hides it or
// the sum is -inf. Nothing of a masked key or value reaches the row, be it NaN. What causal masks,
// windows and key lengths hide is not computed.
class Mask {
 public:
  enum class Kind { kBoolean, kAdditive, kCausal, kWindow, kKeyLengths, kAlibi, kSegments };
  static constexpr int64_t kUnbounded = -1;

  // `mask` is [L|1, S|1], [H|1, L|1, S|1] or [B|1, H|1, L|1, S|1], read through its strides; the
  // memory must live as long as the call. Boolean: dtype kBool.
  static Mask boolean(ConstTensorView mask, MaskSense sense);
  // Adds factor * mask. dtype float32, float64, bool, int32 or int64 (as numbers).
  static Mask additive(ConstTensorView mask, double factor = 1);
  // Query i sees key j if j <= i + offset.
  static Mask causal(QueryOffset offset = CausalAlign::kTopLeft);
  // Query i sees the keys from i + offset - left to i + offset + right; kUnbounded: all on that
  // side. A sliding window of n keys is window(n - 1, 0).
  static Mask window(int64_t left, int64_t right, QueryOffset offset = CausalAlign::kTopLeft);
  // Batch item b (of a packed call: sequence b) sees its first lengths[b] keys. [B], int32 or
  // int64, between 0 and S.
  static Mask key_lengths(ConstTensorView lengths);
  // Query i sees key j if their ids are the same: documents in one sequence, in any order. Both
  // int32 or both int64, query_ids [L] or [B, L], key_ids [S] or [B, S]. Blocks of 8 keys whose
  // ids are not among those of some 48 queries are skipped.
  static Mask segments(ConstTensorView query_ids, ConstTensorView key_ids);
  // Adds -slope * |i + offset - j|, a slope for each head (Press, Smith and Lewis, "Train short,
  // test long", ICLR 2022). slopes: float32 or float64 [H] or [B, H], of a packed call [H] or [N,
  // H]; finite in the query's dtype, also times L + S + |offset|. It has no gradient. A float32
  // score loses up to |slope * distance| * 2^-24, a float64 one 2^-53 of it.
  static Mask alibi(ConstTensorView slopes, QueryOffset offset = CausalAlign::kTopLeft);

  Kind kind() const { return kind_; }
  const ConstTensorView& tensor() const { return tensor_; }  // of segments: query_ids
  const ConstTensorView& key_ids() const { return key_ids_; }
  MaskSense sense() const { return sense_; }
  double factor() const { return factor_; }
  QueryOffset offset() const { return offset_; }
  int64_t left() const { return left_; }
  int64_t right() const { return right_; }

 private:
  explicit Mask(Kind kind) : kind_(kind) {}

  Kind kind_;
  ConstTensorView tensor_, key_ids_;
  MaskSense sense_ = MaskSense::kExcluded;
  double factor_ = 1;
  QueryOffset offset_ = CausalAlign::kTopLeft;
  int64_t left_ = kUnbounded, right_ = kUnbounded;
};

struct AttentionOptions {
  std::optional<double> scale = {};  // default 1 / sqrt(D)
  // Scaled scores become softcap * tanh(score / softcap) before masks are added; 0: they do not.
  double softcap = 0;
  ScoreMod score_mod = {};  // a function of your own, between softcap and masks
  std::vector<Mask> masks = {};
  // A score for each head that every row sees beside those of its keys, and that has no value: it
  // takes its part of the softmax, and what is left of the weights sums to less than 1. It is part
  // of lse, and of no mask; with it no row is empty. [H], the query's dtype; undefined: none.
  ConstTensorView sinks = {};
  // A packed batch: the queries of all sequences one after the other, and so their keys, in tensors
  // of batch 1. Sequence n has the queries [cu_seqlens_q[n], cu_seqlens_q[n + 1]) and the keys
  // [cu_seqlens_k[n], cu_seqlens_k[n + 1]): int32 or int64 [N + 1], from 0 to L and to S, none less
  // than the one before. Rows get the bits that their sequence gives by itself as batch item n, in
  // which positions start at 0; nothing is computed for padding. Both or neither; without weights.
  ConstTensorView cu_seqlens_q = {}, cu_seqlens_k = {};
  EmptyRow empty_rows = EmptyRow::kZero;
  WeightsMode weights = WeightsMode::kNone;
  // A pair of query and key is dropped with this probability, rounded to a multiple of 2^-16 (so
  // below 2^-17 none is), and the others count 1 / (1 - p) times; 1 drops all. Returned weights are
  // what is left; lse does not feel it. Nothing of a dropped value reaches the row, be it NaN.
  double dropout_p = 0;
  uint64_t seed = 0;
  uint32_t dropout_call = 0;  // another number, another choice of pairs: a step's, a layer's
  const char* plan =
      nullptr;  // force a plan by its name in `polyhead info`; null: the first that fits
};

// The caller owns the memory; an undefined view means: not wanted.
struct AttentionOutputs {
  TensorView out = {};  // [B, H, L, Dv], any strides
  TensorView lse =
      {};  // [B, H, L], natural logarithm of the sum of exp(scores), -inf on an empty row
  TensorView weights = {};   // [B, L, S] averaged over heads, or [B, H, L, S]
  TensorView lse_rest = {};  // [B, H, L], what rounding took from lse, for attention_backward
};

// Throws InvalidArgument before any output is touched. query, key, value and outputs have one
// dtype, float32 or float64. Outputs must not overlap inputs. Safe from many threads.
void attention_forward(const ConstTensorView& query, const ConstTensorView& key,
                       const ConstTensorView& value, const AttentionOptions& options,
                       const AttentionOutputs& outputs);

// What attention_forward wrote for the same query, key, value and options, and the derivatives of a
// loss with respect to it.
struct AttentionBackwardInputs {
  ConstTensorView out = {};        // [B, H, L, Dv]
  ConstTensorView lse = {};        // [B, H, L]
  ConstTensorView d_out = {};      // [B, H, L, Dv]
  ConstTensorView d_weights = {};  // as options.weights says: [B, L, S] or [B, H, L, S]; undefined:
                                   // the loss does not see the weights
  // [B, H, L], from the forward. Without it a row's probabilities are off by 2^-24 of its lse: of
  // note in float32 where all scores of a row are far from 0, as under masks of -1e5.
  ConstTensorView lse_rest = {};
};

// Where the derivatives with respect to the inputs go; overwritten. Undefined: not wanted.
struct AttentionGradients {
  TensorView d_query = {};  // [B, H, L, D]
  TensorView d_key = {};    // [B, Hkv, S, D], summed over the queries and the heads that read it
  TensorView d_value = {};  // [B, Hkv, S, Dv]
  // Empty, or one for each of options.masks, in the mask's own shape and the query's dtype, summed
  // over what the mask broadcasts over. Only for additive masks of a floating type. In a packed
  // call, pairs of two sequences have gradient 0.
  std::vector<TensorView> d_masks = {};
  TensorView d_sinks = {};  // [H]
};

// The gradients of softmax(scale * query . key^T + masks) . value. Nothing of [L, S] is kept: the
// probabilities are made again from lse, a tile at a time. A masked pair, and a row without visible
// keys, has gradient 0 whatever its numbers are. The bits do not depend on threads, the ISA (with
// fused multiply-add), nor on which gradients are asked for. options.plan names one of the
// backward's own plans. Throws InvalidArgument, Unsupported (a score_mod without backward) or
// std::bad_alloc before any gradient is touched.
// One dtype throughout, float32 or float64; gradients must not overlap inputs or each other.
// Safe from many threads. Memory: B * H * L numbers; for each thread a tile and the sums of 512
// keys, 345 KiB for D = Dv = 64 in float32, or with d_masks a tile and up to 49 * S numbers if that
// is more; and, where heads are too few for the threads, at most 32 MiB for parts of d_query.
void attention_backward(const ConstTensorView& query, const ConstTensorView& key,
                        const ConstTensorView& value, const AttentionOptions& options,
                        const AttentionBackwardInputs& inputs, const AttentionGradients& gradients);

// Which pairs the forward and the backward keep under dropout_p, seed and dropout_call, the only
// options it looks at: true = kept. keep: bool [B, H, L, S], any strides. A pair's fate is a
// function of these three, B * H's index, query and key alone: Philox4x32-10 (canonical_order.md).
void attention_dropout_mask(const AttentionOptions& options, const TensorView& keep);

}  // namespace polyhead
#pragma GCC visibility pop
