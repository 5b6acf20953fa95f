// Which part of a computation a page of `explain` holds.
#pragma once

#include <cstdint>

#include "job.h"

namespace polyhead::cli {

// The page holds at most so many numbers, in double and base64: 6 MB.
inline constexpr int64_t kMostPageNumbers = 1 << 19;

struct PageCounts {
  int64_t heads = 1, queries = 1, keys = 1;
};

// The sizes that do not shrink.
struct PageWidths {
  int64_t embed_dim = 0, kdim = 0, heads = 0, head_dim = 0, extra = 0;
  int64_t vdim = 0;   // 0 where the key is the value
  int64_t pairs = 3;  // numbers per head, query and key; 5 with masks
};
PageWidths page_widths(const Job& job);

// At most: what the page has no need to hold is counted too. In double: nothing has checked that
// the products fit.
double numbers_held(const PageWidths& widths, const PageCounts& counts);

// `all`, or what of it `most` numbers can hold; at least one of each that `all` has.
PageCounts counts_that_fit(const PageWidths& widths, const PageCounts& all, double most);

// Before the computation: throws FileError if not even one query, key and head fit.
void check_explain_page_size(const Job& job);

}  // namespace polyhead::cli
