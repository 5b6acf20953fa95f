// A trace as a page: which part of it the page holds, and that part's numbers.
#pragma once

#include "job.h"
#include "report/explain_page.h"
#include "trace.h"

namespace polyhead::cli {

// `trace` is null if there is nothing to compute.
ExplainPage explain_page(const Job& job, const Job::Result& result, const Trace* trace);

}  // namespace polyhead::cli
