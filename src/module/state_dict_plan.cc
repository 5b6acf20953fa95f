#include "module/state_dict_plan.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <span>

#include "base/escape.h"
#include "module/forward_inputs.h"
#include "module/require.h"

namespace polyhead {
namespace {

using Names = std::span<const char* const>;
using Range = EntryIndex::Range;

constexpr size_t kLongestName = 200;  // of a tensor, in a message
constexpr int64_t kListedExtras = 16;

// The in-projection weights come first: one of them makes a module.
constexpr const char* kMhaTargets[] = {
    "in_proj_weight",  "q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias",
    "q_proj_bias",     "k_proj_bias",   "v_proj_bias",   "bias_k",        "bias_v",
    "out_proj.weight", "out_proj.bias", "q_norm.weight", "k_norm.weight"};
constexpr size_t kMhaAnchors = 4;
constexpr const char* kScratchTargets[] = {"q_linear.weight", "k_linear.weight", "v_linear.weight",
                                           "q_linear.bias",   "k_linear.bias",   "v_linear.bias",
                                           "fc_out.weight",   "fc_out.bias"};
constexpr size_t kScratchAnchors = 3;

bool contains(Names names, const std::string& name) {
  return std::ranges::any_of(names, [&](const char* known) { return name == known; });
}

std::string_view name_of(const SafetensorsEntry* entry) { return entry->name; }

// What begins with `prefix`, of entries in the order of their names.
Range stretch(Range range, std::string_view prefix) {
  const auto first = std::ranges::lower_bound(range, prefix, {}, name_of);
  const auto last = std::partition_point(first, range.end(), [&](const SafetensorsEntry* entry) {
    return entry->name.starts_with(prefix);
  });
  return {first, last};
}

const SafetensorsEntry* find_name(Range range, const std::string& name) {
  const auto at = std::ranges::lower_bound(range, std::string_view(name), {}, name_of);
  return at != range.end() && (*at)->name == name ? *at : nullptr;
}

// The name in the file, for messages about a tensor that is not there.
std::string name_in_file(const std::string& target, const NameMap& names) {
  for (const auto& [from, to] : names) {
    if (to == target) return from;
  }
  return target;
}

std::vector<std::string> prefixes(const Entries& entries, const NameMap& names, Names anchors) {
  std::vector<std::string> keys;
  for (const char* anchor : anchors) keys.push_back(name_in_file(anchor, names));
  std::vector<std::string> found;
  std::set<std::string> known;
  for (const SafetensorsEntry& entry : entries) {
    for (const std::string& key : keys) {
      if (!entry.name.ends_with(key)) continue;
      const std::string prefix = entry.name.substr(0, entry.name.size() - key.size());
      const bool whole_name = prefix.empty() || prefix.back() == '.' || prefix.back() == '/';
      if (whole_name && known.insert(prefix).second) found.push_back(prefix);
    }
  }
  return found;
}

// "attention.self.query.weight" -> "attention.self.query."
std::string stem(const std::string& name) { return name.substr(0, name.rfind('.') + 1); }

// Collects the tensors under one prefix and what is wrong with them.
class Planner {
 public:
  Planner(const std::string& prefix, const NameMap& names) : prefix_(prefix), names_(names) {
    plan_.module.prefix = prefix;
  }

  void collect(const EntryIndex& index, Names known) {
    const Range below = stretch(index.all(), prefix_);
    for (const auto& [from, to] : names_) {
      if (contains(known, to)) take(below, from, to);
    }
    for (const char* name : known) {
      if (!names_.contains(name)) take(below, name, name);
    }
    add_extras(below);
    for (const char* name : known) {
      if (const SafetensorsEntry* entry = find(name)) dtype(*entry);
    }
    plan_.position = index.entries().size();
    for (const SafetensorsEntry* entry : taken_) {
      plan_.position =
          std::min(plan_.position, static_cast<size_t>(entry - index.entries().data()));
    }
  }

  const SafetensorsEntry* find(const std::string& target) const {
    const auto at = found_.find(target);
    return at == found_.end() ? nullptr : at->second;
  }

  // Size `dim` of a tensor, 0 if it is not there or has not as many.
  int64_t size(const char* target, size_t dim) const {
    const SafetensorsEntry* entry = find(target);
    return entry != nullptr && dim < entry->shape.size() ? entry->shape[dim] : 0;
  }

  bool has_any(std::initializer_list<const char*> targets) const {
    return std::ranges::any_of(targets, [&](const char* name) { return find(name) != nullptr; });
  }

  // The tensor must be there with this shape; `wrong` adds to the message if it has another.
  void need(const char* target, const std::vector<int64_t>& shape, const char* wrong = "") {
    const SafetensorsEntry* entry = find(target);
    if (entry == nullptr) {
      problem(message("missing ", escaped(prefix_ + name_in_file(target, names_), kLongestName),
                      " ", shape_text(shape)));
      return;
    }
    plan_.tensors.emplace_back(target, entry->name);
    plan_.module.tensors.push_back(entry->name);
    if (entry->shape == shape) return;
    const bool transposed = shape.size() == 2 && shape[0] != shape[1] &&
                            entry->shape == std::vector<int64_t>{shape[1], shape[0]};
    problem(message(escaped(entry->name), " is ", shape_text(entry->shape), "; must be ",
                    shape_text(shape),
                    transposed ? " (it is stored transposed, as Conv1D layers do)" : wrong));
  }

  void problem(const std::string& text) { plan_.module.problems.push_back(text); }
  RecognisedModule& module() { return plan_.module; }
  StateDictPlan take() { return std::move(plan_); }

 private:
  // The tensor called `rest` under the prefix, if there is one, is our `target`.
  void take(Range below, const std::string& rest, const std::string& target) {
    const SafetensorsEntry* entry = find_name(below, prefix_ + rest);
    if (entry == nullptr) return;
    taken_.insert(entry);
    const auto [at, fresh] = found_.emplace(target, entry);
    if (fresh) return;
    problem(message("both ", escaped(at->second->name), " and ", escaped(entry->name),
                    " stand for ", target));
  }

  // Under the class's own names everything below the prefix belongs to the module. A map describes
  // part of a layer, so there only what sits beside a mapped tensor does ("query.weight_scale").
  std::vector<std::string> own_stems() const {
    if (names_.empty()) return {""};
    std::vector<std::string> stems;
    for (const auto& [from, to] : names_) {  // in order: what a stem contains comes after it
      const std::string beside = stem(from);
      if (beside.empty() || (!stems.empty() && beside.starts_with(stems.back()))) continue;
      stems.push_back(beside);
    }
    return stems;
  }

  // A file of another model can hold thousands of them: the first are named, the others counted.
  void add_extras(Range below) {
    int64_t extras = 0, named = 0;
    for (const std::string& beside : own_stems()) {
      const Range range = stretch(below, prefix_ + beside);
      extras += std::ssize(range) - std::ranges::count_if(taken_, [&](const auto* entry) {
                  return entry->name.starts_with(prefix_ + beside);
                });
      for (auto at = range.begin(); at != range.end() && named < kListedExtras; ++at) {
        if (taken_.contains(*at)) continue;
        problem("extra tensor " + described(**at));
        ++named;
      }
    }
    if (extras > named) problem(message("and ", extras - named, " more extra tensors"));
  }

  std::string described(const SafetensorsEntry& entry) const {
    return message(escaped(entry.name, kLongestName), " ", shape_text(entry.shape));
  }

  void dtype(const SafetensorsEntry& entry) {
    static constexpr std::array<const char*, 4> kDTypes = {"F32", "F64", "F16", "BF16"};
    std::string& dtype = plan_.module.dtype;
    if (dtype.empty()) dtype = entry.dtype;
    if (!contains(kDTypes, entry.dtype)) {
      problem(message(escaped(entry.name), " has dtype ", escaped(entry.dtype),
                      "; must be F32, F64, F16 or BF16"));
    } else if (first_ == nullptr) {
      first_ = &entry;
      dtype = entry.dtype;
    } else if (first_->dtype != entry.dtype) {
      problem(message("mixed dtypes: ", escaped(first_->name), " is ", first_->dtype, ", ",
                      escaped(entry.name), " is ", escaped(entry.dtype)));
    }
  }

  std::string prefix_;
  const NameMap& names_;
  const SafetensorsEntry* first_ = nullptr;  // of those whose dtype can be loaded
  std::set<const SafetensorsEntry*> taken_;
  std::map<std::string, const SafetensorsEntry*> found_;
  StateDictPlan plan_;
};

int64_t or_else(int64_t size, int64_t otherwise) { return size != 0 ? size : otherwise; }

// What the shapes say, if they fit together. The output projection is [embed_dim, width]. Where
// there is none the packed weight may be stored transposed: the smaller size is taken for E.
void infer_sizes(const Planner& planner, RecognisedModule& module) {
  const int64_t packed_rows = planner.size("in_proj_weight", 0),
                packed_columns = planner.size("in_proj_weight", 1);
  const int64_t separate = or_else(planner.size("q_proj_weight", 0), packed_rows / 3);
  module.packed = planner.find("in_proj_weight") != nullptr;
  module.embed_dim = or_else(planner.size("out_proj.weight", 0),
                             module.packed ? std::min(packed_rows, packed_columns) : separate);
  module.width =
      or_else(planner.size("out_proj.weight", 1), module.packed ? module.embed_dim : separate);
  const int64_t keys = planner.size("k_proj_weight", 0), values = planner.size("v_proj_weight", 0);
  // One of the two may be wrong, or stored transposed: then the message is about that.
  const bool fewer = !module.packed && keys == values && keys < module.width && keys > 0;
  module.kv_width = fewer ? keys : module.width;
  module.kdim = or_else(planner.size("k_proj_weight", 1), module.embed_dim);
  module.vdim = or_else(planner.size("v_proj_weight", 1), module.embed_dim);
}

// in_proj_weight, or three separate weights; and its bias likewise.
void plan_in_projection(Planner& planner) {
  const RecognisedModule& module = planner.module();
  const int64_t width = module.width, kv_width = module.kv_width;
  if (module.packed) {
    if (planner.has_any({"q_proj_weight", "k_proj_weight", "v_proj_weight"})) {
      planner.problem("both in_proj_weight and separate q, k, v weights; only one can be meant");
    }
    planner.need("in_proj_weight", {3 * width, module.embed_dim});
  } else {
    static constexpr const char* kHint = " (a transposed weight, or heads of unequal number?)";
    planner.need("q_proj_weight", {width, module.embed_dim}, kHint);
    planner.need("k_proj_weight", {kv_width, module.kdim}, kHint);
    planner.need("v_proj_weight", {kv_width, module.vdim}, kHint);
  }
  if (!module.has_bias) return;
  if (planner.has_any({"q_proj_bias", "k_proj_bias", "v_proj_bias"})) {
    if (planner.find("in_proj_bias") != nullptr) {
      planner.problem("both in_proj_bias and separate q, k, v biases; only one can be meant");
    }
    planner.need("q_proj_bias", {width});
    planner.need("k_proj_bias", {kv_width});
    planner.need("v_proj_bias", {kv_width});
  } else {
    planner.need("in_proj_bias", {width + 2 * kv_width});
  }
}

void check_names(const NameMap& names, Names known, const char* function) {
  for (const auto& [from, to] : names) {
    if (contains(known, to)) continue;
    std::string all;
    for (const char* name : known) all += (all.empty() ? "" : ", ") + std::string(name);
    Require(function).fail("names",
                           message("\"", escaped(from), "\" leads to \"", escaped(to), "\""),
                           "one of " + all);
  }
}

}  // namespace

std::vector<std::string> mha_prefixes(const Entries& entries, const NameMap& names) {
  return prefixes(entries, names, Names(kMhaTargets).first(kMhaAnchors));
}

std::vector<std::string> scratch_prefixes(const Entries& entries, const NameMap& names) {
  return prefixes(entries, names, Names(kScratchTargets).first(kScratchAnchors));
}

EntryIndex::EntryIndex(const Entries& entries) : entries_(entries) {
  by_name_.reserve(entries.size());
  for (const SafetensorsEntry& entry : entries) by_name_.push_back(&entry);
  std::ranges::sort(by_name_, {}, name_of);
}

StateDictPlan plan_mha(const EntryIndex& index, const std::string& prefix, const NameMap& names) {
  Planner planner(prefix, names);
  planner.collect(index, kMhaTargets);
  RecognisedModule& module = planner.module();
  infer_sizes(planner, module);
  module.has_bias = planner.has_any(
      {"in_proj_bias", "q_proj_bias", "k_proj_bias", "v_proj_bias", "out_proj.bias"});
  module.has_bias_kv = planner.has_any({"bias_k", "bias_v"});
  plan_in_projection(planner);
  if (module.has_bias_kv) {
    planner.need("bias_k", {1, 1, module.kv_width});
    planner.need("bias_v", {1, 1, module.kv_width});
  }
  planner.need("out_proj.weight", {module.embed_dim, module.width});
  if (module.has_bias) planner.need("out_proj.bias", {module.embed_dim});
  if (!planner.has_any({"q_norm.weight", "k_norm.weight"})) return planner.take();
  module.norm_dim = or_else(planner.size("q_norm.weight", 0), planner.size("k_norm.weight", 0));
  planner.need("q_norm.weight", {module.norm_dim});
  planner.need("k_norm.weight", {module.norm_dim});
  return planner.take();
}

// Linear(embed_dim, width) three times, then Linear(width, embed_dim).
StateDictPlan plan_scratch(const EntryIndex& index, const std::string& prefix,
                           const NameMap& names) {
  Planner planner(prefix, names);
  planner.collect(index, kScratchTargets);
  RecognisedModule& module = planner.module();
  const int64_t embed_dim = planner.size("q_linear.weight", 1);
  const int64_t width = planner.size("q_linear.weight", 0);
  const bool full = width > embed_dim;
  module.layout = full ? ModuleLayout::kScratchFull : ModuleLayout::kScratchSplit;
  module.embed_dim = module.kdim = module.vdim = embed_dim;
  module.width = module.kv_width = width;
  module.has_bias = true;
  if (full && embed_dim > 0 && width % embed_dim == 0) module.num_heads = width / embed_dim;
  if (embed_dim == 0 || width % embed_dim != 0) {
    planner.problem(message(escaped(prefix), "q_linear.weight has ", width, " rows of ", embed_dim,
                            "; must be [E, E] or [H*E, E]"));
  }
  for (const std::string name : {"q_linear", "k_linear", "v_linear"}) {
    planner.need((name + ".weight").c_str(), {width, embed_dim});
    planner.need((name + ".bias").c_str(), {width});
  }
  planner.need("fc_out.weight", {embed_dim, width});
  planner.need("fc_out.bias", {embed_dim});
  return planner.take();
}

void check_mha_names(const NameMap& names) { check_names(names, kMhaTargets, kMhaName); }

void check_scratch_names(const NameMap& names) {
  check_names(names, kScratchTargets, kScratchName);
}

}  // namespace polyhead
