#include "c_api/guard.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <new>
#include <stdexcept>

#include <polyhead/error.h>

namespace polyhead::c_api {
namespace {

// A fixed buffer: a string could not be stored when memory has run out.
thread_local char g_message[1024];

void append(size_t* length, const char* text) {
  const size_t count = std::min(std::strlen(text), sizeof g_message - 1 - *length);
  std::memcpy(g_message + *length, text, count);
  *length += count;
  g_message[*length] = '\0';
}

// `function: what`; null: what alone.
polyhead_status keep(polyhead_status status, const char* function, const char* what) {
  size_t length = 0;
  if (function != nullptr) {
    append(&length, function);
    append(&length, ": ");
  }
  // The text of an exception may be lost when memory ran out while it was written.
  append(&length, *what != '\0' ? what : polyhead_status_name(status));
  return status;
}

// Where a message that opens with a C++ function or class goes on; null: it opens otherwise.
const char* after_cpp_name(const char* what) {
  for (const char* name :
       {"attention_", "KvCache", "MultiheadAttention", "FromScratchMultiHeadAttention"}) {
    if (std::strncmp(what, name, std::strlen(name)) != 0) continue;
    const char* colon = std::strstr(what, ": ");
    return colon == nullptr ? nullptr : colon + 2;
  }
  return nullptr;
}

// A refusal, in the name of the C function.
polyhead_status keep_refusal(polyhead_status status, const char* function, const char* what) {
  const char* rest = after_cpp_name(what);
  return rest == nullptr ? keep(status, nullptr, what) : keep(status, function, rest);
}

}  // namespace

polyhead_status keep_current_exception(const char* function) noexcept {
  try {
    throw;
  } catch (const InvalidArgument& error) {
    return keep_refusal(POLYHEAD_INVALID_ARGUMENT, function, error.what());
  } catch (const Unsupported& error) {
    return keep_refusal(POLYHEAD_UNSUPPORTED, function, error.what());
  } catch (const IoError& error) {
    return keep_refusal(POLYHEAD_FILE, function, error.what());
  } catch (const std::bad_alloc&) {
    return keep(POLYHEAD_MEMORY, function, "out of memory");
  } catch (const std::length_error&) {
    return keep(POLYHEAD_MEMORY, function, "more memory than can be addressed");
  } catch (const std::exception& error) {
    return keep(POLYHEAD_INTERNAL, function, error.what());
  } catch (...) {
    return keep(POLYHEAD_INTERNAL, function, "an exception of unknown type");
  }
}

const char* last_error() noexcept { return g_message; }

}  // namespace polyhead::c_api
