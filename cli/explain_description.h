// What the page says of a computation, besides its numbers.
#pragma once

#include "job.h"
#include "report/explain_page.h"
#include "trace.h"

namespace polyhead::cli {

// The steps with their lines of code, the masks, and what the module has and appends.
void describe(const Job& job, const Trace& trace, ExplainPage& page);

}  // namespace polyhead::cli
