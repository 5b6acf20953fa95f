// A score_mod of functions in C.
#pragma once

#include <polyhead/c_api.h>
#include <polyhead/score_mod.h>

namespace polyhead::c_api {

// `own` must outlive the result.
ScoreMod score_mod_of(polyhead_score_mod* own);

}  // namespace polyhead::c_api
