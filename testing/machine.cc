#include "testing/machine.h"

#include <gtest/gtest.h>
#include <polyhead/runtime.h>
#include "attention/plan.h"

namespace polyhead::oracle {

void for_each_isa(const std::function<void(const std::string& isa)>& body) {
  for (const std::string& name : available_isas()) {
    const ForcedIsa forced(name);
    SCOPED_TRACE("isa " + name);
    body(name);
  }
}

std::vector<std::string> isas_with_fma() {
  std::vector<std::string> names = available_isas();
  std::erase(names, "baseline");
  return names;
}

std::vector<std::string> plans_for(const AttentionCall& call, bool with_reference) {
  std::vector<std::string> names;
  for (const Plan& plan : plans()) {
    const bool reference = std::string(plan.name) == "reference";
    if (plan.supports(call) && (!reference || with_reference || names.empty())) {
      names.emplace_back(plan.name);
    }
  }
  return names;
}

ForcedIsa::ForcedIsa(const std::string& name) : saved_(isa()) { force_isa(name); }
ForcedIsa::~ForcedIsa() { force_isa(saved_); }

Threads::Threads(int n) : saved_(num_threads()) { set_num_threads(n); }
Threads::~Threads() { set_num_threads(saved_); }

}  // namespace polyhead::oracle
