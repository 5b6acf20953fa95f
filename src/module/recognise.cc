#include "module/recognise.h"

#include <algorithm>
#include <charconv>

#include <polyhead/multihead_attention.h>
#include "module/state_dict_plan.h"

namespace polyhead {
namespace {

int64_t metadata_heads(const std::map<std::string, std::string>& metadata) {
  const auto at = metadata.find("num_heads");
  return at == metadata.end() ? 0 : whole_number(at->second);
}

// Where the module stands in the file: the first of its tensors.
size_t position(const Entries& entries, const RecognisedModule& module) {
  for (size_t i = 0; i < entries.size(); ++i) {
    if (std::ranges::find(module.tensors, entries[i].name) != module.tensors.end()) return i;
  }
  return entries.size();
}

}  // namespace

std::vector<RecognisedModule> recognise_modules(
    const Entries& entries, const std::map<std::string, std::string>& metadata) {
  std::vector<RecognisedModule> modules;
  const auto add = [&](StateDictPlan plan, const char* map) {
    // A map leaves the class's own names as they are, so it finds those modules again.
    for (const RecognisedModule& known : modules) {
      if (known.tensors == plan.module.tensors) return;
    }
    plan.module.map = map;
    if (plan.module.num_heads == 0) plan.module.num_heads = metadata_heads(metadata);
    modules.push_back(std::move(plan.module));
  };
  const std::pair<const char*, NameMap> maps[] = {{"", {}},
                                                  {"bert", name_maps::bert()},
                                                  {"vit", name_maps::vit()},
                                                  {"llama", name_maps::llama()}};
  for (const auto& [map, names] : maps) {
    for (const std::string& prefix : mha_prefixes(entries, names)) {
      add(plan_mha(entries, prefix, names), map);
    }
  }
  for (const std::string& prefix : scratch_prefixes(entries, {})) {
    add(plan_scratch(entries, prefix, {}), "");
  }
  std::ranges::stable_sort(
      modules, {}, [&](const RecognisedModule& module) { return position(entries, module); });
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
