// The plans of the backward on its kernel. They differ in what a task is, never in a bit.
#pragma once

#include "attention/attention_backward.h"

namespace polyhead {

bool head_tasks_fit(const BackwardCall& backward);
bool chunk_tasks_fit(const BackwardCall& backward);
bool two_phases_fit(const BackwardCall& backward);
void run_head_tasks(const BackwardCall& backward);
void run_chunk_tasks(const BackwardCall& backward);
void run_two_phases(const BackwardCall& backward);

}  // namespace polyhead
