// Writes the fuzzers' first inputs: sound files of every dtype and of several ranks, which mutation
// then breaks. Usage: write_seeds FOLDER
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>

#include <polyhead/io.h>

namespace {

using polyhead::DType;
using polyhead::Tensor;

constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat64, DType::kFloat16, DType::kBFloat16,
                             DType::kBool,    DType::kInt32,   DType::kInt64};

void write_npy(const std::filesystem::path& folder) {
  for (DType dtype : kDTypes) {
    if (dtype == DType::kBFloat16) continue;  // npy has none
    const std::string name = polyhead::dtype_name(dtype);
    polyhead::save_npy((folder / name).string(), Tensor(dtype, {2, 3}));
    polyhead::save_npy((folder / (name + "-scalar")).string(), Tensor(dtype, {}));
  }
  polyhead::save_npy((folder / "rank8").string(),
                     Tensor(DType::kFloat32, {1, 1, 2, 1, 1, 2, 1, 1}));
  polyhead::save_npy((folder / "empty").string(), Tensor(DType::kFloat32, {4, 0}));
}

void write_safetensors(const std::filesystem::path& folder) {
  polyhead::save_safetensors((folder / "none").string(), {});
  for (DType dtype : kDTypes) {
    const Tensor tensor(dtype, {2, 2});
    polyhead::save_safetensors((folder / polyhead::dtype_name(dtype)).string(), {{"w", tensor}});
  }
  const Tensor scalar(DType::kFloat32, {}), empty(DType::kInt64, {0, 3}), flags(DType::kBool, {3});
  polyhead::save_safetensors((folder / "several").string(),
                             {{"in_proj_weight", scalar}, {"e", empty}, {"mask", flags}},
                             {{"format", "pt"}, {"num_heads", "4"}});
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: write_seeds FOLDER\n");
    return 2;
  }
  try {
    const std::filesystem::path folder = argv[1];
    std::filesystem::create_directories(folder / "npy");
    std::filesystem::create_directories(folder / "safetensors");
    write_npy(folder / "npy");
    write_safetensors(folder / "safetensors");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "write_seeds: %s\n", error.what());
    return 1;
  }
  return 0;
}
