// A module's weights and biases by what they do, whatever its state dict calls them.
#pragma once

#include <cstdint>
#include <vector>

#include "job.h"
#include "report/explain_page.h"

namespace polyhead::cli {

int64_t parameter_count(const Job& job);  // numbers in the state dict

// w_q, b_q, w_k, b_k, w_v, b_v, w_o, b_o; biases only where there are any.
std::vector<ExplainMatrix> explain_parameters(const Job& job);

}  // namespace polyhead::cli
