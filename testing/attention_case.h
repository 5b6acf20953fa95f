// Inputs for the attention op: shapes, regimes of scores, masks and memory layouts, all drawn from
// a seed.
//
//   const AttentionProblem problem({.q_len = 5, .kv_len = 65, .masks = {{.kind = kCausal}}});
//   AttentionRun run = run_attention_case(problem.call());
#pragma once

#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

#include "attention/attention_call.h"
#include "testing/guarded.h"
#include "testing/random.h"

namespace polyhead::oracle {

enum class Regime {
  kNearUniform,  // scores of deviation 0.05
  kSigma1,
  kPeaked,  // deviation 4 in the first head to 16 in the last
  kAllEqual,
  kHuge,        // scores of deviation 900, values of 2^60
  kDenormal,    // queries and values below the smallest normal number
  kDescending,  // each key 2.5 below the one before
  kAscending,   // 2.5 above: the running maximum is outgrown in every 8 keys
};
inline constexpr Regime kRegimes[] = {Regime::kNearUniform, Regime::kSigma1,   Regime::kPeaked,
                                      Regime::kAllEqual,    Regime::kHuge,     Regime::kDenormal,
                                      Regime::kDescending,  Regime::kAscending};
const char* regime_name(Regime regime);
void PrintTo(Regime regime, std::ostream* stream);  // for GoogleTest

enum class MaskPattern {
  kRandom,     // every pair by chance
  kPadding,    // trailing keys, as many as chance has it; at least one key is left
  kEmptyRows,  // every third query sees nothing
  kOneKey,     // each query sees exactly one key
};

struct MaskSpec {
  Mask::Kind kind = Mask::Kind::kBoolean;
  // Of "bhls", from the right; '1' broadcasts: "ls", "b11s", "hl1". ALiBi's slopes and segments are
  // every batch item's own if it begins with b.
  const char* dims = "ls";
  MaskPattern pattern = MaskPattern::kRandom;
  double density = 0.3;  // chance of a pair to be masked, under kRandom
  MaskSense sense = MaskSense::kExcluded;
  QueryOffset align = CausalAlign::kTopLeft;                  // of a causal mask or a window
  int64_t left = Mask::kUnbounded, right = Mask::kUnbounded;  // of a window
  DType dtype = DType::kFloat32;  // of an additive mask; kInt32: of lengths and ids, else int64
  double factor = 1;
};

// Of the sequences of a packed batch.
struct Lengths {
  std::vector<int64_t> queries = {}, keys = {};
  DType dtype = DType::kInt32;  // of cu_seqlens
};

struct AttentionCase {
  int64_t batch = 1, heads = 2, kv_heads = 2, q_len = 5, kv_len = 9, head_dim = 8, v_head_dim = 8;
  Lengths lengths = {};  // if any, their sums replace q_len and kv_len, and batch is 1
  int64_t extra = 0;     // appended columns
  DType dtype = DType::kFloat32;
  Regime regime = Regime::kSigma1;
  std::vector<MaskSpec> masks = {};
  EmptyRow empty_rows = EmptyRow::kZero;
  WeightsMode weights = WeightsMode::kNone;
  double dropout_p = 0;
  double softcap = 0;
  ScoreMod score_mod = {};
  const char* score_mod_name = "of the test's own";
  bool sinks = false;
  std::optional<double> scale = {};
  Storage storage = Storage::kContiguous;
  bool with_rest = true;  // the backward is told lse_rest
  int threads = 0;        // a check runs on so many, too; 0: it does not
  uint64_t seed = 1;

  bool packed() const { return !lengths.queries.empty(); }
  int64_t num_sequences() const {
    return packed() ? static_cast<int64_t>(lengths.queries.size()) : batch;
  }
  std::string describe() const;  // all of it
};
void PrintTo(const AttentionCase& spec, std::ostream* stream);  // for GoogleTest

class AttentionProblem {
 public:
  explicit AttentionProblem(const AttentionCase& spec);
  AttentionProblem(const AttentionProblem&) = delete;

  AttentionCall call() const;  // without outputs; lives as long as this and `masks` unchanged

  AttentionCase spec;
  GuardedTensor query, key, value, extra_key, extra_value, sinks, cu_seqlens_q, cu_seqlens_k;
  std::vector<GuardedTensor> mask_tensors;
  std::vector<Mask> masks;

 private:
  GuardedTensor bounds_of(const std::vector<int64_t>& lengths) const;
  void add_mask(const MaskSpec& mask, Random& random);
  void add_key_lengths(const MaskSpec& mask, Random& random);
  void add_slopes(const MaskSpec& mask, Random& random);
  void add_segments(const MaskSpec& mask, Random& random);
};

// The masks of a part of a problem: each narrowed in one of its last four dimensions where it has
// that size. Causal masks and windows are taken along as they are, and so are key lengths but for
// the batch.
std::vector<Mask> narrowed(const std::vector<Mask>& masks, int dim, int64_t start, int64_t length);

struct AttentionRun {
  GuardedTensor out, lse, lse_rest, weights;  // weights undefined for WeightsMode::kNone
  bool intact() const {
    return out.intact() && lse.intact() && lse_rest.intact() && weights.intact();
  }
};

// Validates and runs with outputs of its own, NaN before the call. Plan: "" is the op's choice.
AttentionRun run_attention_case(AttentionCall call, const std::string& plan = "",
                                Storage storage = Storage::kContiguous);

}  // namespace polyhead::oracle
