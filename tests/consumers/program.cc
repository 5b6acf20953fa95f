// What a user of the C++ API writes. Each way of linking builds it; it fails if the library does
// not answer as it should.
#include <polyhead/polyhead.h>

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

int main() {
  const polyhead::MultiheadAttention mha(
      {.embed_dim = 16, .num_heads = 4, .layout = polyhead::Layout::kBatchFirst});
  const std::vector<float> x(2 * 3 * 16, 0.5f);
  const polyhead::ConstTensorView view(x.data(), {2, 3, 16});
  // Three equal keys weigh a third each, on every instruction set, however the library was built.
  bool thirds = true;
  std::string shape;
  for (const std::string& isa : polyhead::available_isas()) {
    polyhead::force_isa(isa);
    const auto [out, weights] =
        mha.forward(view, view, view, {.need_weights = polyhead::WeightsMode::kAverage});
    for (int i = 0; i < 18; ++i) thirds &= std::abs(weights.data_as<float>()[i] * 3 - 1) < 1e-6f;
    shape = out.shape_string();
  }
  bool refused = false;
  try {
    mha.forward(view, {}, view);
  } catch (const polyhead::InvalidArgument&) {  // thrown in the library, caught outside
    refused = true;
  }
  std::printf("polyhead %s, %s, out %s\n", polyhead::version(), polyhead::isa().c_str(),
              shape.c_str());
  return thirds && refused && shape == "[2, 3, 16]" ? 0 : 1;
}
