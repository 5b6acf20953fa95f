#include "module/recognise.h"

#include <algorithm>
#include <charconv>
#include <set>

#include <polyhead/multihead_attention.h>
#include "base/escape.h"
#include "base/message.h"
#include "module/state_dict_plan.h"

namespace polyhead {
namespace {

// The number of heads that the file states, where the shapes do not.
void add_metadata_heads(RecognisedModule& module,
                        const std::map<std::string, std::string>& metadata) {
  const auto at = metadata.find("num_heads");
  if (module.num_heads != 0 || at == metadata.end()) return;
  module.num_heads = whole_number(at->second);
  const std::string said = message("num_heads of __metadata__ is ", in_quotes(at->second, 40));
  if (module.num_heads == 0) {
    module.problems.push_back(said + "; must be a whole number greater than 0");
  } else if (module.embed_dim % module.num_heads != 0) {
    module.problems.push_back(message(said, "; must divide embed_dim, ", module.embed_dim));
  }
}

}  // namespace

std::vector<RecognisedModule> recognise_modules(
    const Entries& entries, const std::map<std::string, std::string>& metadata) {
  const EntryIndex index(entries);
  std::vector<StateDictPlan> plans;
  std::set<std::vector<std::string>> known;  // their tensors
  const auto add = [&](StateDictPlan plan, const char* map) {
    // A map leaves the class's own names as they are, so it finds those modules again.
    if (!known.insert(plan.module.tensors).second) return;
    plan.module.map = map;
    add_metadata_heads(plan.module, metadata);
    plans.push_back(std::move(plan));
  };
  const std::pair<const char*, NameMap> maps[] = {{"", {}},
                                                  {"bert", name_maps::bert()},
                                                  {"vit", name_maps::vit()},
                                                  {"llama", name_maps::llama()}};
  for (const auto& [map, names] : maps) {
    for (const std::string& prefix : mha_prefixes(entries, names)) {
      add(plan_mha(index, prefix, names), map);
    }
  }
  for (const std::string& prefix : scratch_prefixes(entries, {})) {
    add(plan_scratch(index, prefix, {}), "");
  }
  std::ranges::stable_sort(plans, {}, &StateDictPlan::position);
  std::vector<RecognisedModule> modules;
  for (StateDictPlan& plan : plans) modules.push_back(std::move(plan.module));
  return modules;
}

std::vector<RecognisedModule> recognise_modules(const SafetensorsFile& file) {
  return recognise_modules(file.entries(), file.metadata());
}

int64_t whole_number(const std::string& text) {
  int64_t number = 0;
  const char* last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, number);
  return error == std::errc() && end == last && number > 0 ? number : 0;
}

const char* layout_name(ModuleLayout layout) {
  switch (layout) {
    case ModuleLayout::kMha:
      return "nn.MultiheadAttention";
    case ModuleLayout::kScratchSplit:
      return "from scratch";
    case ModuleLayout::kScratchFull:
      return "from scratch, full head width";
  }
  return "";
}

}  // namespace polyhead
