// One computation as the command line describes it: a module of either class, its inputs, masks.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <polyhead/polyhead.h>
#include "arguments.h"
#include "output_files.h"

namespace polyhead::cli {

class Job {
 public:
  // Loads everything. Throws UsageError where flags do not fit the layout that the file has,
  // FileError (or the library's exceptions) where files are bad or do not fit together.
  explicit Job(const ModuleArguments& arguments);

  struct Result {
    Tensor out;      // as the query
    Tensor weights;  // [B, L, S'] or [B, H, L, S'], unbatched without B; undefined unless wanted
  };
  Result forward(WeightsMode need_weights) const;

  const ModuleArguments& arguments() const { return arguments_; }
  // Exactly one of the two is there.
  const MultiheadAttention* mha() const { return mha_ ? &*mha_ : nullptr; }
  const FromScratchMultiHeadAttention* scratch() const { return scratch_ ? &*scratch_ : nullptr; }

  bool map_is_idle() const { return map_is_idle_; }  // the file has none of --map's names

  // As given; a missing key is the query, a missing value the key.
  const Tensor& query() const { return query_; }
  const Tensor& key() const { return key_.defined() ? key_ : query_; }
  const Tensor& value() const { return value_.defined() ? value_ : key(); }
  const Tensor& scratch_mask() const { return scratch_mask_; }
  ForwardOptions options(WeightsMode need_weights) const;
  // The same tensor as [B, len, features].
  ConstTensorView batch_first(const ConstTensorView& view) const;
  bool batched() const { return query_.rank() == 3; }

  int64_t num_heads() const;
  int64_t head_dim() const;
  std::string module_name() const;  // "nn.MultiheadAttention"
  // "batch 2, 5 queries, 9 keys, 4 heads of 16". Once a forward has accepted the inputs.
  std::string understood() const;

 private:
  void load_module();
  void load_chosen_module();
  void load_inputs();
  Result forward_scratch(WeightsMode need_weights) const;

  ModuleArguments arguments_;
  std::optional<MultiheadAttention> mha_;
  std::optional<FromScratchMultiHeadAttention> scratch_;
  bool map_is_idle_ = false;
  Tensor query_, key_, value_, attn_mask_, key_padding_mask_, scratch_mask_;
};

// The files a job reads.
std::vector<std::string> input_paths(const ModuleArguments& arguments);

// What --need-weights and --weights-out ask for together.
WeightsMode wanted_weights(const ModuleArguments& arguments);

}  // namespace polyhead::cli
