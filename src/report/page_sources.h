// The pages' own files. embed.cmake writes the definitions.
#pragma once

#include "report/page_parts.h"

namespace polyhead::page_sources {

extern const PageSources kHeads;    // page/: the page of heads
extern const PageSources kExplain;  // explain/: one computation, step by step

}  // namespace polyhead::page_sources
