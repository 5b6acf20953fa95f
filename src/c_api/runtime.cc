#include <polyhead/runtime.h>

#include <algorithm>
#include <string>

#include "c_api/convert.h"
#include "c_api/guard.h"

namespace {

thread_local char g_isa[32];

}  // namespace

extern "C" {

const char* polyhead_last_error() { return polyhead::c_api::last_error(); }

const char* polyhead_status_name(polyhead_status status) {
  static constexpr const char* kNames[] = {"ok",         "invalid argument", "unsupported",
                                           "file error", "memory",           "internal error"};
  if (status < 0 || status > POLYHEAD_INTERNAL) return "unknown status";
  return kNames[status];
}

const char* polyhead_version() { return polyhead::version(); }

polyhead_status polyhead_set_num_threads(int32_t n) {
  return polyhead::c_api::guarded(__func__, [&] { polyhead::set_num_threads(n); });
}

polyhead_status polyhead_get_num_threads(int32_t* out) {
  const char* function = __func__;
  return polyhead::c_api::guarded(function, [&] {
    polyhead::c_api::require_not_null(out, {function, "out"});
    *out = polyhead::num_threads();
  });
}

const char* polyhead_isa() {
  const polyhead_status status = polyhead::c_api::guarded(__func__, [] {
    const std::string name = polyhead::isa();
    g_isa[name.copy(g_isa, sizeof g_isa - 1)] = '\0';
  });
  return status == POLYHEAD_OK ? g_isa : nullptr;
}

polyhead_status polyhead_force_isa(const char* name) {
  const char* function = __func__;
  return polyhead::c_api::guarded(function, [&] {
    polyhead::c_api::require_not_null(name, {function, "name"});
    polyhead::force_isa(name);
  });
}

polyhead_status polyhead_lend_executor(polyhead_parallel_for parallel_for, void* context) {
  return polyhead::c_api::guarded(__func__,
                                  [&] { polyhead::lend_executor(parallel_for, context); });
}

}  // extern "C"
