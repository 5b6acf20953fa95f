// The border of the C ABI. Every function runs its body in here, and no `catch` stands elsewhere:
// no exception crosses, and each failure becomes a status and a message.
#pragma once

#include <polyhead/c_api.h>

namespace polyhead::c_api {

// To be called in a catch block: keeps the message for polyhead_last_error and gives the status.
// Allocates nothing, as memory may just have run out.
polyhead_status keep_current_exception(const char* function) noexcept;

const char* last_error() noexcept;

template <class Body>
polyhead_status guarded(const char* function, const Body& body) noexcept {
  try {
    body();
    return POLYHEAD_OK;
  } catch (...) {
    return keep_current_exception(function);
  }
}

}  // namespace polyhead::c_api
