// Reads a file with our readers and writes it with our writers, for test_files.py.
//
//   resave safetensors IN OUT | npy IN OUT | module IN OUT PREFIX
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include <polyhead/polyhead.h>

namespace {

void resave_safetensors(const std::string& in, const std::string& out) {
  const polyhead::SafetensorsFile file(in);
  std::vector<polyhead::Tensor> tensors;
  polyhead::NamedTensors named;
  tensors.reserve(file.entries().size());  // views into it must stay where they are
  for (const auto& entry : file.entries()) {
    tensors.push_back(file.read(entry.name));
    named.emplace_back(entry.name, tensors.back());
  }
  polyhead::save_safetensors(out, named, file.metadata());
}

void resave_module(const std::string& in, const std::string& out, const std::string& prefix) {
  polyhead::MultiheadAttention::load(in, {.layout = polyhead::Layout::kBatchFirst})
      .save(out, prefix);
}

}  // namespace

int main(int argc, char** argv) try {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  if (arguments.size() < 3) return 2;
  const std::string &kind = arguments[0], &in = arguments[1], &out = arguments[2];
  if (kind == "safetensors") resave_safetensors(in, out);
  if (kind == "npy") polyhead::save_npy(out, polyhead::load_npy(in));
  if (kind == "module") resave_module(in, out, arguments.size() > 3 ? arguments[3] : "");
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "resave: %s\n", error.what());
  return 1;
}
