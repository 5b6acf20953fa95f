// What `verify` found, and how it says it.
#pragma once

#include <optional>
#include <string>

#include "comparison.h"
#include "errors.h"
#include "terminal.h"

namespace polyhead::cli {

struct Verdict {
  std::string module, understood, dtype, isa;
  Comparison out;
  std::optional<Comparison> weights;  // unless --need-weights none

  bool within_budget() const {
    return out.within_budget() && (!weights || weights->within_budget());
  }
  ExitCode exit_code() const { return within_budget() ? kOk : kBeyondBudget; }
};

std::string verdict_text(const Verdict& verdict, const Terminal& terminal);
// NaN and infinities have no JSON number: they become null.
std::string verdict_json(const Verdict& verdict);

}  // namespace polyhead::cli
