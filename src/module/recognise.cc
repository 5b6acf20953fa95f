#include "module/recognise.h"

#include <charconv>
#include <map>
#include <set>

#include <polyhead/multihead_attention.h>
#include "base/escape.h"
#include "base/message.h"
#include "module/state_dict_plan.h"

namespace polyhead {
namespace {

// The number of heads that the file states, where the shapes do not. A text that is no number of
// heads leaves it unknown: the caller can still give it.
void add_metadata_heads(RecognisedModule& module,
                        const std::map<std::string, std::string>& metadata) {
  const auto at = metadata.find("num_heads");
  if (module.num_heads != 0 || at == metadata.end()) return;
  module.num_heads = whole_number(at->second);
  if (module.num_heads == 0) return;
  const std::string problem = heads_problem(module, module.num_heads);
  if (problem.empty()) return;
  module.problems.push_back(
      message("num_heads ", module.num_heads, " of __metadata__ does not fit: must be ", problem));
}

std::string described(const RecognisedModule& module) {
  const std::string map = module.map.empty() ? "" : ", name map " + module.map;
  return message('"', escaped(module.prefix), "\" (", layout_name(module.layout), map, ")");
}

}  // namespace

std::vector<RecognisedModule> recognise_modules(
    const Entries& entries, const std::map<std::string, std::string>& metadata) {
  const EntryIndex index(entries);
  std::multimap<size_t, RecognisedModule> found;  // by their place in the file
  std::set<std::vector<std::string>> known;       // their tensors
  const auto add = [&](StateDictPlan plan, const char* map) {
    // A map leaves the class's own names as they are, so it finds those modules again.
    if (!known.insert(plan.module.tensors).second) return;
    plan.module.map = map;
    add_metadata_heads(plan.module, metadata);
    found.emplace(plan.position, std::move(plan.module));
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
  std::vector<RecognisedModule> modules;
  for (auto& [position, module] : found) modules.push_back(std::move(module));
  return modules;
}

std::string heads_problem(const RecognisedModule& module, int64_t num_heads) {
  if (module.width % num_heads != 0) {
    return message("a divisor of ",
                   module.width == module.embed_dim ? "embed_dim " : "the query's width ",
                   module.width);
  }
  const int64_t head_dim = module.width / num_heads;
  if (module.norm_dim != 0 && module.norm_dim != head_dim) {
    return message("one that makes heads as wide as q_norm.weight, ", module.norm_dim);
  }
  const bool whole = head_dim > 0 && module.kv_width % head_dim == 0;
  const int64_t kv_heads = whole ? module.kv_width / head_dim : 0;
  if (kv_heads > 0 && num_heads % kv_heads == 0) return "";
  return message("one whose heads, of ", module.width, " / num_heads rows, make up the ",
                 module.kv_width, " rows of key and value");
}

int64_t head_dim_of(const RecognisedModule& module, int64_t num_heads) {
  return module.width / num_heads;
}

int64_t num_kv_heads_of(const RecognisedModule& module, int64_t num_heads) {
  return module.kv_width / head_dim_of(module, num_heads);
}

std::vector<SafetensorsEntry> module_entries(const SafetensorsFile& file) {
  Entries entries = file.entries();
  if (!file.metadata().contains("polyhead.checkpoint")) return entries;
  std::erase_if(entries, [](const SafetensorsEntry& entry) {
    return entry.name.starts_with("adamw.mean.") || entry.name.starts_with("adamw.square.");
  });
  return entries;
}

std::vector<RecognisedModule> recognise_modules(const SafetensorsFile& file) {
  return recognise_modules(module_entries(file), file.metadata());
}

std::string listed(const std::vector<std::string>& items, const char* separator) {
  constexpr size_t kListed = 12;
  std::string text;
  for (size_t i = 0; i < items.size() && i < kListed; ++i) text += (i ? separator : "") + items[i];
  if (items.size() > kListed) text += message(separator, "and ", items.size() - kListed, " more");
  return text;
}

std::string recognised_text(const SafetensorsFile& file) {
  std::vector<std::string> modules;
  for (const RecognisedModule& module : recognise_modules(file)) {
    modules.push_back(described(module));
  }
  if (modules.empty()) return "no attention module is recognised in it";
  return "recognised in it: " + listed(modules, ", ");
}

std::string no_such_prefix(const SafetensorsFile& file, const std::string& prefix) {
  const std::string got = message("prefix: got \"", escaped(prefix), "\"; ");
  for (const RecognisedModule& module : recognise_modules(file)) {
    if (module.prefix != prefix + ".") continue;
    return message(got, "did you mean ", described(module), "?");
  }
  return got + recognised_text(file);
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
