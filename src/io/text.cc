#include <polyhead/io.h>
#include "io/atomic_file.h"

namespace polyhead {

void save_text(const std::string& path, const std::string& text) {
  AtomicFile file("save_text", path);
  file.write(std::string_view(text));
  file.commit();
}

}  // namespace polyhead
