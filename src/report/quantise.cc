#include "report/quantise.h"

#include <algorithm>
#include <cmath>

#include "report/head_stats.h"

namespace polyhead {
namespace {

void append_code(double w, WeightCode code, std::string* out, QuantiseLoss* loss) {
  if (std::isnan(w)) {
    ++loss->nan;
    w = 0;
  }
  const double clamped = std::clamp(w, 0.0, 1.0);
  double stored;
  if (code == WeightCode::kLinear16) {
    const auto q = static_cast<uint32_t>(std::lround(clamped * 65535));
    out->push_back(static_cast<char>(q & 255));
    out->push_back(static_cast<char>(q >> 8));
    stored = q / 65535.0;
  } else {
    const auto q = static_cast<uint32_t>(std::lround(std::sqrt(clamped) * 255));
    out->push_back(static_cast<char>(q));
    stored = (q / 255.0) * (q / 255.0);
  }
  loss->worst = std::max(loss->worst, std::abs(stored - w));
}

}  // namespace

std::string quantise(const ConstTensorView& weights, WeightCode code, QuantiseLoss* loss) {
  std::string out;
  out.reserve(static_cast<size_t>(weights.numel()) * (code == WeightCode::kLinear16 ? 2 : 1));
  for (int64_t head = 0; head < weights.size(0); ++head) {
    const ConstTensorView one = weights.select(0, head);
    for (int64_t query = 0; query < one.size(0); ++query) {
      for (int64_t key = 0; key < one.size(1); ++key) {
        append_code(weight_at(one, query, key), code, &out, loss);
      }
    }
  }
  return out;
}

}  // namespace polyhead
