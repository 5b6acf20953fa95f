#include "module/heads/head_rows_reference.h"

#include <cmath>

namespace polyhead {
namespace {

constexpr long double kTwoPi = 6.28318530717958647692528676655900577L;

// Radians from one position to the next.
long double frequency(const Rope& rope, int64_t pair) {
  const auto dim = static_cast<long double>(rope.rotary_dim), factor = rope.factor + 0.0L;
  long double base = rope.base;
  if (rope.scaling == RopeScaling::kNtk && rope.rotary_dim > 2) {
    base *= std::pow(factor, dim / (dim - 2));
  }
  const long double plain = std::pow(base, -2 * static_cast<long double>(pair) / dim);
  if (rope.scaling == RopeScaling::kLinear) return plain / factor;
  if (rope.scaling != RopeScaling::kLlama3) return plain;
  const long double turns = static_cast<long double>(rope.original_length) * plain / kTwoPi;
  const long double low = rope.low_freq_factor, high = rope.high_freq_factor;
  if (turns > high) return plain;
  if (turns < low) return plain / factor;
  const long double smooth = (turns - low) / (high - low);
  return (1 - smooth) * plain / factor + smooth * plain;
}

void rotate(RowNumbers& row, const Rope& rope, int64_t position, double sign, double unit) {
  const int64_t pairs = rope.rotary_dim / 2;
  for (int64_t i = 0; i < pairs; ++i) {
    const long double angle = static_cast<long double>(position) * frequency(rope, i);
    const auto cosine = static_cast<double>(std::cos(angle));
    const double sine = sign * static_cast<double>(std::sin(angle));
    const bool halves = rope.pairs == RopePairs::kHalves;
    RowNumber& first = row[static_cast<size_t>(halves ? i : 2 * i)];
    RowNumber& second = row[static_cast<size_t>(halves ? i + pairs : 2 * i + 1)];
    const RowNumber a = first, b = second;
    first.value = a.value * cosine - b.value * sine;
    second.value = b.value * cosine + a.value * sine;
    const double angle_error = std::abs(static_cast<double>(angle)) * 0x1p-51 +
                               std::abs(static_cast<double>(position)) * 0x1p-62;
    const double own = (3 * unit + angle_error) * (std::abs(a.value) + std::abs(b.value));
    first.error = std::abs(cosine) * a.error + std::abs(sine) * b.error + own;
    second.error = std::abs(cosine) * b.error + std::abs(sine) * a.error + own;
  }
}

struct InverseNorm {
  double value = 0, relative_error = 0;
};
InverseNorm inverse_norm(const RowNumbers& x, double epsilon, double unit) {
  const auto dim = static_cast<double>(x.size());
  double squares = 0, carried = 0;
  for (const RowNumber& number : x) {
    squares += number.value * number.value;
    carried += number.value * number.error * number.value * number.error;
  }
  const double mean = squares / dim + epsilon;
  return {1 / std::sqrt(mean), std::sqrt(carried) / (dim * mean) + unit * (std::sqrt(dim) / 2 + 3)};
}

}  // namespace

void norm_reference(RowNumbers& row, const double* weight, double epsilon, double unit) {
  const InverseNorm inverse = inverse_norm(row, epsilon, unit);
  for (RowNumber& number : row) {
    const double scale = inverse.value * *weight++;
    const double y = number.value * scale;
    number.error =
        std::abs(scale) * number.error + std::abs(y) * (inverse.relative_error + 2 * unit);
    number.value = y;
  }
}

void rotate_reference(RowNumbers& row, const Rope& rope, int64_t position, double unit) {
  rotate(row, rope, position, 1, unit);
}

void transform_reference(RowNumbers& row, const AttentionSizes& sizes, const double* norm,
                         int64_t position, double unit) {
  if (norm != nullptr) norm_reference(row, norm, sizes.qk_norm_eps, unit);
  if (sizes.rotates()) rotate_reference(row, sizes.rope, position, unit);
}

void rotate_backward_reference(RowNumbers& row, const Rope& rope, int64_t position, double unit) {
  rotate(row, rope, position, -1, unit);
}

// forward: y = x r g. d_g = d_y x r;  d_x = r (d_y g - x r mean(d_y g x r))
void norm_backward_reference(RowNumbers& row, const RowNumbers& x, const double* weight,
                             double epsilon, double unit, RowNumbers* d_weight) {
  const InverseNorm r = inverse_norm(x, epsilon, unit);
  const auto dim = static_cast<double>(x.size());
  double mean = 0, magnitude = 0, carried = 0;
  for (size_t d = 0; d < x.size(); ++d) {
    const double g = row[d].value * weight[d];
    mean += g * x[d].value * r.value / dim;
    magnitude += std::abs(g * x[d].value * r.value) / dim;
    carried += (std::abs(weight[d] * x[d].value) * row[d].error + std::abs(g) * x[d].error) *
               r.value / dim;
  }
  const double mean_error = carried + magnitude * (r.relative_error + unit * (std::sqrt(dim) + 4));
  for (size_t d = 0; d < x.size(); ++d) {
    const RowNumber d_y = row[d];
    const double unit_x = x[d].value * r.value;
    const double unit_error =
        std::abs(r.value) * x[d].error + std::abs(unit_x) * (r.relative_error + unit);
    RowNumber& share = (*d_weight)[d];
    share.value = d_y.value * unit_x;
    share.error = d_y.error * std::abs(unit_x) + std::abs(d_y.value) * unit_error;
    const double g = d_y.value * weight[d], d_x = r.value * (g - unit_x * mean);
    const double size = std::abs(g) + std::abs(unit_x * mean);
    const double inside = std::abs(weight[d]) * d_y.error + std::abs(mean) * unit_error +
                          std::abs(unit_x) * mean_error + 2 * unit * size;
    row[d] = {d_x, r.value * inside + std::abs(d_x) * (r.relative_error + unit)};
  }
}

}  // namespace polyhead
