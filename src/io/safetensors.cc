#include <utility>

#include <polyhead/io.h>
#include "base/escape.h"
#include "io/elements.h"
#include "io/input_file.h"
#include "io/safetensors_dtype.h"
#include "io/safetensors_reader.h"

namespace polyhead {

SafetensorsReader::SafetensorsReader(std::unique_ptr<ByteSource> source, const std::string& path,
                                     const SafetensorsOptions& options)
    : source_(std::move(source)), header_(parse_safetensors_header(*source_, path, options)) {
  source_->check_unchanged();
}

Tensor SafetensorsReader::read(const std::string& name) const {
  const SafetensorsEntry* entry = header_.find(name);
  if (entry == nullptr) {
    throw InvalidArgument(message(source_->where(), ": ", shown_tensor(name),
                                  ": is not there; the file has ", header_.entries.size(),
                                  " tensors"));
  }
  const auto dtype = find_safetensors_dtype(entry->dtype)->dtype;
  if (!dtype) {
    source_->unsupported(shown_tensor(name), ": dtype: is ", entry->dtype,
                         "; need F32, F64, F16, BF16, BOOL, I32 or I64");
  }
  if (entry->shape.size() > static_cast<size_t>(kMaxRank)) {
    source_->unsupported(shown_tensor(name), ": shape: has ", entry->shape.size(),
                         " dimensions; need at most ", kMaxRank);
  }
  Tensor tensor(*dtype, entry->shape);
  source_->read(header_.data_start + entry->begin, bytes_of(tensor));
  source_->check_unchanged();
  check_bools(*source_, shown_tensor(name) + ": ", tensor);
  return tensor;
}

struct SafetensorsFile::Impl {
  std::string path;
  SafetensorsReader reader;
};

SafetensorsFile::SafetensorsFile(const std::string& path, const SafetensorsOptions& options)
    : impl_(new Impl{path, SafetensorsReader(std::make_unique<InputFile>("SafetensorsFile", path),
                                             path, options)}) {}
SafetensorsFile::~SafetensorsFile() = default;
SafetensorsFile::SafetensorsFile(SafetensorsFile&&) noexcept = default;
SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&&) noexcept = default;

const std::string& SafetensorsFile::path() const { return impl_->path; }
const std::vector<SafetensorsEntry>& SafetensorsFile::entries() const {
  return impl_->reader.header().entries;
}
const SafetensorsEntry* SafetensorsFile::find(const std::string& name) const {
  return impl_->reader.header().find(name);
}
const std::map<std::string, std::string>& SafetensorsFile::metadata() const {
  return impl_->reader.header().metadata;
}
Tensor SafetensorsFile::read(const std::string& name) const { return impl_->reader.read(name); }
Tensor SafetensorsFile::read_widened(const std::string& name) const { return widened(read(name)); }

}  // namespace polyhead
