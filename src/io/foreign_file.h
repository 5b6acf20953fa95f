// Files of other kinds that are often handed to a reader by mistake: what they are, and the line of
// Python that makes a file we read.
#pragma once

#include <string>

#include "io/byte_source.h"

namespace polyhead {

// One sentence for the error message, or "" if the first bytes are of no kind we know.
std::string foreign_file_hint(const ByteSource& source, const std::string& path);

}  // namespace polyhead
