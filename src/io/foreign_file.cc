#include "io/foreign_file.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "base/escape.h"

namespace polyhead {
namespace {

// "dir/model.pt" with ".npy" is "dir/model.npy".
std::string with_extension(const std::string& path, const std::string& extension) {
  const size_t name = path.rfind('/') == std::string::npos ? 0 : path.rfind('/') + 1;
  const size_t dot = path.rfind('.');
  return (dot == std::string::npos || dot <= name ? path : path.substr(0, dot)) + extension;
}

// weights_only: without it torch runs whatever code the pickle holds. What is read is never written
// over: a checkpoint may be called .safetensors, as a file downloaded under a wrong name is.
std::string convert_checkpoint(const std::string& path) {
  std::string converted = with_extension(path, ".safetensors");
  if (converted == path) converted = with_extension(path, ".converted.safetensors");
  return message("convert it in Python: import torch; from safetensors.torch import save_file; ",
                 "save_file(torch.load(", in_quotes(path), ", weights_only=True), ",
                 in_quotes(converted), ", metadata={\"num_heads\": \"H\"}), H the number of heads");
}

std::string merge_shards(const std::string& path) {
  return message("if it is a sharded index, merge the shards in Python, in their folder: ",
                 "import json; from safetensors.torch import load_file, save_file; ",
                 "save_file({k: v for f in set(json.load(open(", in_quotes(path),
                 "))[\"weight_map\"].values()) for k, v in load_file(f).items()}, ",
                 "\"merged.safetensors\")");
}

std::string unpack_npz(const std::string& path) {
  return message("unpack it in Python: import numpy; numpy.save(",
                 in_quotes(with_extension(path, ".npy")), ", numpy.load(", in_quotes(path),
                 ")[NAME])");
}

}  // namespace

std::string foreign_file_hint(const ByteSource& source, const std::string& path) {
  std::array<char, 8> first = {};
  const auto bytes = static_cast<size_t>(std::min<int64_t>(source.size(), first.size()));
  source.read(0, std::as_writable_bytes(std::span(first).first(bytes)));
  const std::string_view start(first.data(), bytes);
  if (start.starts_with("PK")) {
    const bool is_npz = path.ends_with(".npz");
    return is_npz
               ? message("it is an .npz archive; ", unpack_npz(path))
               : message("it is a zip archive, as torch.save writes; ", convert_checkpoint(path));
  }
  if (start.starts_with('\x80') && bytes > 1 && first[1] >= 2 && first[1] <= 5) {
    return "it is a Python pickle, which can run code when loaded and is never read here; " +
           convert_checkpoint(path);
  }
  if (start.starts_with("GGUF")) {
    return "it is a GGUF file, which is not read here; export the model as safetensors";
  }
  if (start.starts_with("\x89HDF")) {
    return "it is an HDF5 file, which is not read here; export the weights as safetensors";
  }
  if (start.starts_with("\x93NUMPY")) return "it is an npy file; load it as one";
  if (start.starts_with('{')) return "it is a JSON file; " + merge_shards(path);
  if (start.starts_with("version ")) {
    return "it looks like a Git LFS pointer instead of the file; fetch it with: git lfs pull";
  }
  if (start.starts_with('<')) {
    return "it looks like a web page instead of the file (download failed?)";
  }
  return "";
}

}  // namespace polyhead
