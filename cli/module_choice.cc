#include "module_choice.h"

#include <algorithm>
#include <vector>

#include "base/escape.h"
#include "errors.h"
#include "module/recognise.h"
#include "name_map_file.h"

namespace polyhead::cli {
namespace {

bool is_scratch(const RecognisedModule& module) { return module.layout != ModuleLayout::kMha; }

// Under the class's own names, and under --prefix where one is given.
std::vector<RecognisedModule> candidates(const SafetensorsFile& file, const std::string& prefix) {
  std::vector<RecognisedModule> modules = recognise_modules(file);
  std::erase_if(modules, [&](const RecognisedModule& module) {
    return !module.map.empty() || (!prefix.empty() && module.prefix != prefix);
  });
  return modules;
}

[[noreturn]] void fail_without_module(const SafetensorsFile& file, const ModuleArguments& a) {
  const std::string what =
      "--weights " + escaped(a.weights) + ": no attention module is recognised";
  for (const RecognisedModule& module : recognise_modules(file)) {
    if (module.map.empty() || (!a.prefix.empty() && module.prefix != a.prefix)) continue;
    throw FileError(what + "; it looks like --map " + module.map);
  }
  if (!a.prefix.empty()) throw FileError("--" + no_such_prefix(file, a.prefix));
  throw FileError(what + "; `polyhead info` lists what the file holds");
}

bool scratch_by_names(const SafetensorsFile& file, const ModuleArguments& a) {
  const std::vector<RecognisedModule> modules = candidates(file, a.prefix);
  if (modules.empty()) fail_without_module(file, a);
  const auto count = std::count_if(modules.begin(), modules.end(), is_scratch);
  if (count != 0 && count != static_cast<std::ptrdiff_t>(modules.size())) {
    throw UsageError("--layout: " + escaped(a.weights) +
                     " holds modules of both layouts; say mha or scratch");
  }
  return count != 0;
}

bool scratch_by_map(const NameMap& names) {
  return std::any_of(names.begin(), names.end(), [](const auto& pair) {
    return pair.second.find("_linear.") != std::string::npos;
  });
}

// The flag may be left out only where the file says it.
void check_num_heads(const SafetensorsFile& file, const ModuleArguments& a, bool scratch) {
  if (a.num_heads || file.metadata().contains("num_heads")) return;
  const std::vector<RecognisedModule> modules = candidates(file, a.prefix);
  const bool in_shapes = scratch && std::any_of(modules.begin(), modules.end(), [](const auto& m) {
                           return m.layout == ModuleLayout::kScratchFull && m.num_heads > 0;
                         });
  if (in_shapes) return;
  throw UsageError("--num-heads: not given, and " + escaped(a.weights) +
                   " has no num_heads in its __metadata__");
}

// By the ends of the names: what comes before is the prefix.
bool names_any(const NameMap& names, const SafetensorsFile& file) {
  return std::any_of(names.begin(), names.end(), [&](const auto& pair) {
    const std::vector<SafetensorsEntry>& entries = file.entries();
    return std::any_of(entries.begin(), entries.end(), [&](const SafetensorsEntry& entry) {
      return entry.name.ends_with(pair.first);
    });
  });
}

}  // namespace

ModuleChoice choose_module(const ModuleArguments& a) {
  ModuleChoice choice;
  if (!a.map.empty()) choice.names = read_name_map(a.map);
  const SafetensorsFile file(a.weights);
  if (a.layout != LayoutChoice::kAuto) {
    choice.scratch = a.layout == LayoutChoice::kScratch;
    choice.because = "--layout";
  } else if (!a.map.empty()) {
    choice.scratch = scratch_by_map(choice.names);
    choice.because = "--map";
  } else {
    choice.scratch = scratch_by_names(file, a);
    choice.because = escaped(a.weights);
  }
  check_num_heads(file, a, choice.scratch);
  choice.map_is_idle = !choice.names.empty() && !names_any(choice.names, file);
  return choice;
}

}  // namespace polyhead::cli
