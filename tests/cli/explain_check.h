// Holds what `explain` wrote against what it must show.
#pragma once

#include <string>

#include "explain_expected.h"
#include "explain_outputs.h"

namespace polyhead::cli {

// NaN where NaN is due, infinity where infinity is; else no further than the bound, and `more`.
bool within(long double got, const Bounded& want, long double more = 0);

// Every number of the page. The page may hold a part of the queries and keys.
void expect_page(const Page& page, const Expected& expected);
// The fast path's bits, and how far they are from the last step.
void expect_fast_path(const Page& page, const Numbers& fast);
// Every number of the text, to the digits that are printed. `expected` has "fast" too.
void expect_text(const std::string& text, const Expected& expected, const Page& page);

}  // namespace polyhead::cli
