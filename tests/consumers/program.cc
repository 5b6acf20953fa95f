// What a user of the C++ API writes. Each way of linking builds it; it fails if the library does
// not answer as it should.
#include <polyhead/polyhead.h>

#include <cstdio>
#include <vector>

int main() {
  const polyhead::MultiheadAttention mha(
      {.embed_dim = 16, .num_heads = 4, .layout = polyhead::Layout::kBatchFirst});
  const std::vector<float> x(2 * 3 * 16, 0.5f);
  const polyhead::ConstTensorView view(x.data(), {2, 3, 16});
  const auto [out, weights] =
      mha.forward(view, view, view, {.need_weights = polyhead::WeightsMode::kAverage});
  // Three equal keys weigh the same.
  const bool equal = weights.data_as<float>()[0] == weights.data_as<float>()[2];
  bool refused = false;
  try {
    mha.forward(view, {}, view);
  } catch (const polyhead::InvalidArgument&) {  // thrown in the library, caught outside
    refused = true;
  }
  std::printf("polyhead %s, %s, out %s\n", polyhead::version(), polyhead::isa().c_str(),
              out.shape_string().c_str());
  return equal && refused && out.shape_string() == "[2, 3, 16]" ? 0 : 1;
}
