// Attention without a module: causal, on one packed buffer of queries, keys and values as a
// projection leaves it. The heads are views into it; nothing is copied.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include <polyhead/polyhead.h>

using namespace polyhead;

constexpr int64_t kBatch = 2, kLength = 7, kHeads = 3, kHeadDim = 16;

Tensor attend(const ConstTensorView& query, const ConstTensorView& key,
              const ConstTensorView& value) {
  AttentionOptions options;
  options.masks = {Mask::causal()};
  Tensor out(DType::kFloat32, {kBatch, kLength, kHeads, kHeadDim});
  // The op wants [B, H, L, D]; rows of all heads beside each other are that, seen through strides.
  attention_forward(query, key, value, options, {.out = out.view().transposed(1, 2)});
  return out;
}

int main() {
  std::vector<float> qkv(kBatch * kLength * 3 * kHeads * kHeadDim);
  for (size_t i = 0; i < qkv.size(); ++i) qkv[i] = std::sin(0.37F * static_cast<float>(i));
  const ConstTensorView packed(qkv.data(), {kBatch, kLength, 3, kHeads, kHeadDim});

  const ConstTensorView query = packed.select(2, 0).transposed(1, 2);  // [B, H, L, D]
  const ConstTensorView key = packed.select(2, 1).transposed(1, 2);
  const ConstTensorView value = packed.select(2, 2).transposed(1, 2);
  const Tensor out = attend(query, key, value);  // [B, L, H, D]

  // A copy of each operand, row-major: the same numbers, to the bit.
  const Tensor copied = attend(Tensor(query), Tensor(key), Tensor(value));
  const size_t bytes = static_cast<size_t>(out.numel()) * sizeof(float);
  const bool same_bits = std::memcmp(out.data(), copied.data(), bytes) == 0;

  // The first position sees itself alone: its output is its value.
  const auto* first_value = packed.select(0, 0).select(0, 0).select(0, 2).data_as<float>();
  const bool causal = std::memcmp(out.data(), first_value, sizeof(float) * kHeadDim) == 0;
  std::printf("out %s, strided and copied %s, first row %s\n", out.shape_string().c_str(),
              same_bits ? "the same bits" : "DIFFER", causal ? "is its value" : "IS NOT ITS VALUE");
  return same_bits && causal ? 0 : 1;
}
