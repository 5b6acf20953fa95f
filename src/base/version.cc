#include <polyhead/runtime.h>

namespace polyhead {

const char* version() { return POLYHEAD_VERSION; }

}  // namespace polyhead
