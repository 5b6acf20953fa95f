// safetensors and npy files: strict readers, atomic writers.
//
//   SafetensorsFile file(path);
//   Tensor weight = file.read("out_proj.weight");
//   save_npy("out.npy", out);
//
// A damaged file throws IoError with one line: file, tensor, field, what was found, what is needed.
// Memory stays bounded by the file's size. Writers write beside the target and rename: the file
// appears whole or not at all.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <polyhead/tensor_view.h>

#pragma GCC visibility push(default)
namespace polyhead {

struct SafetensorsOptions {
  int64_t max_header_bytes = 100'000'000;  // the specification's limit
};

struct SafetensorsEntry {
  std::string name;
  std::string dtype;  // as in the file: "F32", "BF16", "I8", ...
  std::vector<int64_t> shape;
  int64_t begin = 0, end = 0;  // bytes within the data section
};

class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::string& path, const SafetensorsOptions& options = {});
  ~SafetensorsFile();
  SafetensorsFile(SafetensorsFile&&) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept;

  const std::string& path() const;
  const std::vector<SafetensorsEntry>& entries() const;         // in file order of the header
  const SafetensorsEntry* find(const std::string& name) const;  // null if absent
  const std::map<std::string, std::string>& metadata() const;   // __metadata__
  // Reads with pread into owned memory. Throws IoError; Unsupported for a dtype without DType or a
  // rank above kMaxRank; InvalidArgument for a name that is not there.
  Tensor read(const std::string& name) const;
  // The same, float16 and bfloat16 widened to float32.
  Tensor read_widened(const std::string& name) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

using NamedTensors = std::vector<std::pair<std::string, ConstTensorView>>;
void save_safetensors(const std::string& path, const NamedTensors& tensors,
                      const std::map<std::string, std::string>& metadata = {});

// npy: dtypes f2 f4 f8 i4 i8 b1, either byte order, C or Fortran order (both converted).
Tensor load_npy(const std::string& path);
void save_npy(const std::string& path, const ConstTensorView& tensor);

// Whole text files, written beside and renamed.
void save_text(const std::string& path, const std::string& text);

}  // namespace polyhead
#pragma GCC visibility pop
