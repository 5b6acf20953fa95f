#include "module/module_files.h"

#include <polyhead/io.h>
#include "base/escape.h"
#include "module/forward_inputs.h"
#include "module/heads/rotary.h"
#include "module/module_metadata.h"
#include "module/recognise.h"
#include "module/require.h"
#include "module/state_dict_plan.h"

namespace polyhead {
namespace {

// One file, one class: finds the module's prefix and plans what to read.
class Reader {
 public:
  using Prefixes = std::vector<std::string> (*)(const Entries&, const NameMap&);
  using MakePlan = StateDictPlan (*)(const EntryIndex&, const std::string&, const NameMap&);

  Reader(const char* function, const std::string& path, const LoadOptions& options)
      : function_(function),
        path_(path),
        options_(options),
        file_(path),
        entries_(module_entries(file_)) {}

  StateDictPlan plan(Prefixes prefixes, MakePlan make_plan) const {
    const std::string prefix = chosen_prefix(prefixes(entries_, options_.names));
    StateDictPlan plan = make_plan(EntryIndex(entries_), prefix, options_.names);
    if (!plan.module.problems.empty()) fail(listed(plan.module.problems, "; "));
    return plan;
  }

  // `known`: what the shapes say, 0 if nothing. What is given must not contradict the file: any
  // divisor would give an answer, and a wrong one.
  int64_t num_heads(int64_t known) const {
    const int64_t given = options_.num_heads;
    if (given == 0) return known != 0 ? known : metadata_heads();
    const int64_t stated = known != 0 ? known : stated_heads();
    if (given < 0) fail(message("num_heads: got ", given, "; must be greater than 0"));
    if (stated != 0 && given != stated) {
      fail(message("num_heads: got ", given, "; must be ", stated, ", by ",
                   known != 0 ? "the shape of q_linear.weight" : "the file's __metadata__"));
    }
    return given;
  }

  // The heads of the plan's key and value, after checks of what shapes and __metadata__ say.
  int64_t num_kv_heads(const StateDictPlan& plan, int64_t num_heads) const {
    const std::string problem = heads_problem(plan.module, num_heads);
    if (!problem.empty()) fail(message("num_heads: got ", num_heads, "; must be ", problem));
    const int64_t heads = num_kv_heads_of(plan.module, num_heads);
    const auto at = file_.metadata().find("num_kv_heads");
    if (at != file_.metadata().end() && at->second != std::to_string(heads)) {
      fail(message("num_kv_heads: __metadata__ has \"", escaped(at->second, 40), "\"; must be ",
                   heads, ", by num_heads ", num_heads, " and the shapes"));
    }
    return heads;
  }

  // What is given, or stated; of both, the same. Defaults that depend on head_dim are filled in.
  Rope rope(int64_t head_dim) const {
    const Rope given = checked_rope(options_.rope, head_dim, function_);
    const Rope stated = stated_rope(file_.metadata(), context());
    if (stated.pairs == RopePairs::kNone) return given;
    if (given.pairs == RopePairs::kNone) return stated;
    if (!(given == checked_rope(stated, head_dim, function_))) {
      fail("rope: given, but another is in the file's __metadata__; must be the same, or left out");
    }
    return given;
  }

  Layout layout() const {  // kUnset: said nowhere, for the module to refuse
    if (options_.layout != Layout::kUnset) return options_.layout;
    const std::optional<bool> batch_first = stated_flag(file_.metadata(), "batch_first", context());
    if (!batch_first) return Layout::kUnset;
    return *batch_first ? Layout::kBatchFirst : Layout::kSequenceFirst;
  }

  bool add_zero_attn() const {
    if (options_.add_zero_attn) return *options_.add_zero_attn;
    return stated_flag(file_.metadata(), "add_zero_attn", context()).value_or(false);
  }

  double dropout() const {
    if (options_.dropout) return *options_.dropout;
    return stated_number(file_.metadata(), "dropout", context()).value_or(0);
  }

  double qk_norm_eps(const RecognisedModule& module) const {
    const std::optional<double> given = options_.qk_norm_eps,
                                stated = stated_number(file_.metadata(), "qk_norm_eps", context());
    if (given && module.norm_dim == 0) {
      fail("qk_norm_eps: given, but there is no q_norm.weight; must be left out");
    }
    if (given && stated && *given != *stated) {
      fail(message("qk_norm_eps: got ", *given, "; must be ", *stated,
                   ", by the file's __metadata__"));
    }
    return given.value_or(stated.value_or(MultiheadAttention::Config().qk_norm_eps));
  }

  LoadedTensors tensors(const StateDictPlan& plan) const {
    LoadedTensors tensors;
    for (const auto& [target, name] : plan.tensors) {
      tensors.emplace_back(target, file_.read_widened(name));
    }
    return tensors;
  }

 private:
  std::string context() const { return message(function_, ": ", escaped(path_), ": "); }
  [[noreturn]] void fail(const std::string& what) const { throw InvalidArgument(context() + what); }

  std::string chosen_prefix(const std::vector<std::string>& found) const {
    if (!options_.prefix.empty()) {
      if (std::ranges::find(found, options_.prefix) != found.end()) return options_.prefix;
      fail(no_such_prefix(file_, options_.prefix));
    }
    if (found.size() == 1) return found.front();
    if (found.empty()) fail("holds no module of this class; " + recognised_text(file_));
    std::vector<std::string> quoted;
    for (const std::string& each : found) quoted.push_back(message('"', escaped(each), '"'));
    fail(message("holds ", found.size(), " modules; name one as prefix: ", listed(quoted, ", ")));
  }

  // 0 if __metadata__ has no number of heads.
  int64_t stated_heads() const {
    const auto at = file_.metadata().find("num_heads");
    return at == file_.metadata().end() ? 0 : whole_number(at->second);
  }

  int64_t metadata_heads() const {
    const auto& metadata = file_.metadata();
    const auto at = metadata.find("num_heads");
    if (at == metadata.end()) {
      fail("num_heads: not given, and not in the file's __metadata__; must be given");
    }
    const int64_t heads = whole_number(at->second);
    if (heads == 0) {
      fail(message("num_heads: __metadata__ has \"", escaped(at->second, 40),
                   "\"; must be a whole number greater than 0"));
    }
    return heads;
  }

  const char* function_;
  const std::string& path_;
  const LoadOptions& options_;
  SafetensorsFile file_;
  Entries entries_;
};

DType module_dtype(const LoadedTensors& tensors) { return tensors.front().second.dtype(); }

}  // namespace

MhaFile read_mha(const std::string& path, const LoadOptions& options) {
  check_mha_names(options.names);
  const Reader reader("MultiheadAttention::load", path, options);
  const StateDictPlan plan = reader.plan(mha_prefixes, plan_mha);
  const int64_t num_heads = reader.num_heads(0);
  MhaFile result;
  result.config = {.embed_dim = plan.module.embed_dim,
                   .num_heads = num_heads,
                   .layout = reader.layout(),
                   .bias = plan.module.has_bias,
                   .add_bias_kv = plan.module.has_bias_kv,
                   .add_zero_attn = reader.add_zero_attn(),
                   .kdim = plan.module.kdim,
                   .vdim = plan.module.vdim,
                   .dropout = reader.dropout(),
                   .num_kv_heads = reader.num_kv_heads(plan, num_heads),
                   .head_dim = head_dim_of(plan.module, num_heads),
                   .qk_norm = plan.module.norm_dim != 0,
                   .qk_norm_eps = reader.qk_norm_eps(plan.module)};
  result.config.rope = reader.rope(result.config.head_dim);
  result.tensors = reader.tensors(plan);
  result.config.dtype = module_dtype(result.tensors);
  return result;
}

ScratchFile read_scratch(const std::string& path, const LoadOptions& options) {
  check_scratch_names(options.names);
  if (options.add_zero_attn.value_or(false) || options.dropout.value_or(0) != 0) {
    Require(kScratchName).fail("options", "add_zero_attn or dropout is set", "left out here");
  }
  if (!(options.rope == Rope{}) || options.qk_norm_eps) {
    Require(kScratchName).fail("options", "rope or qk_norm_eps is set", "left out here");
  }
  const Reader reader("FromScratchMultiHeadAttention::load", path, options);
  const StateDictPlan plan = reader.plan(scratch_prefixes, plan_scratch);
  const bool full = plan.module.layout == ModuleLayout::kScratchFull;
  ScratchFile result;
  result.embed_size = plan.module.embed_dim;
  result.num_heads = reader.num_heads(full ? plan.module.num_heads : 0);
  result.width = full ? HeadWidth::kFull : HeadWidth::kSplit;
  result.tensors = reader.tensors(plan);
  result.dtype = module_dtype(result.tensors);
  return result;
}

void fill_parameters(const ParameterViews& targets, const LoadedTensors& tensors,
                     const char* function) {
  for (const auto& [name, tensor] : tensors) assign_parameter(targets, name, tensor, function);
}

void save_module(const std::string& path, const std::string& prefix,
                 const std::vector<std::pair<std::string, ConstTensorView>>& state_dict,
                 const std::map<std::string, std::string>& metadata) {
  NamedTensors tensors;
  for (const auto& [name, view] : state_dict) tensors.emplace_back(prefix + name, view);
  save_safetensors(path, tensors, metadata);
}

}  // namespace polyhead
