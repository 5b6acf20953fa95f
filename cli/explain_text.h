// The trace as text: nine steps, each with its formula, its shapes and its numbers.
#pragma once

#include <iosfwd>
#include <string>

#include "job.h"
#include "terminal.h"
#include "trace.h"

namespace polyhead::cli {

void print_trace(const Job& job, const Trace& trace, const Terminal& terminal, std::ostream& out);

std::string shape_text(const Matrix& matrix);  // "[3, 8]"

}  // namespace polyhead::cli
