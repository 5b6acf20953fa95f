// Writes what explain_page_test.py lets `polyhead explain` read: make_explain_files FOLDER
//   small.safetensors   8 features, 2 heads, bias_k and bias_v; [2, 5, 8] queries, [2, 6, 8] keys
//   large.safetensors   64 features, 4 heads; [1, 160, 64]: more than a page holds
//   scratch.safetensors the from-scratch module, full head width
// and masks; some of the names are hostile.
#include <cstdint>
#include <cstdio>
#include <functional>
#include <initializer_list>
#include <string>

#include <polyhead/polyhead.h>

namespace polyhead {
namespace {

constexpr Layout kLayout = Layout::kBatchFirst;

// Values between -1 and 1.
Tensor made_up(std::initializer_list<int64_t> shape) {
  Tensor tensor(DType::kFloat32, shape);
  uint64_t state = 1;
  for (int64_t n = 0; n < tensor.numel(); ++n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    tensor.data_as<float>()[n] = static_cast<float>(state >> 40) / 8388608.0f - 1.0f;
  }
  return tensor;
}

Tensor hides(int64_t rows, int64_t columns, const std::function<bool(int64_t, int64_t)>& rule) {
  Tensor mask(DType::kBool, {rows, columns});
  for (int64_t n = 0; n < rows * columns; ++n) {
    mask.data_as<bool>()[n] = rule(n / columns, n % columns);
  }
  return mask;
}

void write_files(const std::string& folder) {
  const auto save = [&](const char* name, const Tensor& tensor) {
    save_npy(folder + "/" + name, tensor);
  };
  MultiheadAttention({.embed_dim = 8, .num_heads = 2, .layout = kLayout, .add_bias_kv = true}, 1)
      .save(folder + "/small.safetensors");
  MultiheadAttention({.embed_dim = 8, .num_heads = 2, .layout = kLayout}, 2)
      .save(folder + "/plain.safetensors");
  MultiheadAttention({.embed_dim = 64, .num_heads = 4, .layout = kLayout}, 3)
      .save(folder + "/large.safetensors");
  FromScratchMultiHeadAttention(8, 2, HeadWidth::kFull, 4).save(folder + "/scratch.safetensors");
  save("<img src=x onerror=1>.npy", made_up({2, 5, 8}));
  save("k.npy", made_up({2, 6, 8}));
  save("none.npy", made_up({2, 0, 8}));
  save("long.npy", made_up({1, 160, 64}));
  // Query 1 sees nothing, query 2 every other key.
  save("\u202emask.npy",
       hides(5, 6, [](int64_t i, int64_t j) { return i == 1 || (i == 2 && j % 2 == 1); }));
  save("scratch_mask.npy", made_up({5, 6}));
}

}  // namespace
}  // namespace polyhead

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: make_explain_files FOLDER\n");
    return 2;
  }
  polyhead::write_files(argv[1]);
  return 0;
}
