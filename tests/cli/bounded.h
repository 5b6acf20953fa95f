// A number, and how far a computation in double may be from it: each operation carries the errors
// of its operands on and adds its own rounding. Values are long double, so that their own roundings
// are far below the bound.
#pragma once

#include <cmath>

namespace polyhead::cli {

struct Bounded {
  long double value = 0, error = 0;
};

inline Bounded rounded(long double value, long double error) {
  constexpr long double kUnit = 0x1p-53L, kSmallest = 0x1p-1074L;
  return {value, error + kUnit * (std::abs(value) + error) + kSmallest};
}

inline Bounded operator+(const Bounded& a, const Bounded& b) {
  return rounded(a.value + b.value, a.error + b.error);
}

inline Bounded operator-(const Bounded& a, const Bounded& b) {
  return rounded(a.value - b.value, a.error + b.error);
}

inline Bounded operator*(const Bounded& a, const Bounded& b) {
  return rounded(a.value * b.value,
                 std::abs(a.value) * b.error + std::abs(b.value) * a.error + a.error * b.error);
}

inline Bounded operator/(const Bounded& a, const Bounded& b) {
  const long double quotient = a.value / b.value;
  return rounded(quotient,
                 (a.error + std::abs(quotient) * b.error) / (std::abs(b.value) - b.error));
}

// libm's exp is within one unit in the last place: one rounding more than the best.
inline Bounded exp(const Bounded& a) {
  const long double power = std::exp(a.value);
  const Bounded once = rounded(power, power * std::expm1(a.error));
  return rounded(once.value, once.error);
}

}  // namespace polyhead::cli
