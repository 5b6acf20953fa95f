// The ordered table of plans. Choice depends on shapes and options, never on timing.
#pragma once

#include <span>

#include "attention/attention_call.h"

namespace polyhead {

struct Plan {
  const char* name;
  const char* when;
  bool (*supports)(const AttentionCall& call);
  void (*run)(const AttentionCall& call);
};

std::span<const Plan> plans();  // best first
const Plan& choose_plan(const AttentionCall& call);

}  // namespace polyhead
