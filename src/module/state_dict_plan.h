// From a file's list of tensors to the parameters of one module, before any data is read.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include <polyhead/io.h>
#include <polyhead/multihead_attention.h>
#include "module/recognise.h"

namespace polyhead {

using Entries = std::vector<SafetensorsEntry>;

// The entries in the order of their names: what one prefix holds is one stretch of it, so that a
// file of many modules takes no longer than its list is long. Points into the entries.
class EntryIndex {
 public:
  using Range = std::span<const SafetensorsEntry* const>;
  explicit EntryIndex(const Entries& entries);

  const Entries& entries() const { return entries_; }
  Range all() const { return by_name_; }

 private:
  const Entries& entries_;
  std::vector<const SafetensorsEntry*> by_name_;
};

struct StateDictPlan {
  RecognisedModule module;
  size_t position = 0;  // of the module's first tensor in the file
  std::vector<std::pair<std::string, std::string>> tensors;  // our name, name in the file
};

// Prefixes under which a weight of the layout's in-projection is found, in file order.
std::vector<std::string> mha_prefixes(const Entries& entries, const NameMap& names);
std::vector<std::string> scratch_prefixes(const Entries& entries, const NameMap& names);

// What the module under `prefix` would be; what is wrong with it goes into module.problems.
StateDictPlan plan_mha(const EntryIndex& index, const std::string& prefix, const NameMap& names);
StateDictPlan plan_scratch(const EntryIndex& index, const std::string& prefix,
                           const NameMap& names);

// Throws InvalidArgument if the map leads to a name that the class has not.
void check_mha_names(const NameMap& names);
void check_scratch_names(const NameMap& names);

}  // namespace polyhead
