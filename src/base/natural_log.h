// log(x) in double without libm, whose bits depend on the machine.
#pragma once

#include <bit>
#include <cstdint>

namespace polyhead {

// x > 0, normal, finite or +inf; NaN stays NaN. log(x) = e * ln 2 + 2 atanh(z) with x = f * 2^e,
// f in [sqrt(1/2), sqrt(2)), z = (f - 1) / (f + 1), |z| < 0.172: the series to z^21 is exact to
// double's rounding. Error under 2 units in the last place.
inline double natural_log(double x) {
  if (!(x < 0x1p1023 * 2)) return x;  // +inf or NaN
  uint64_t bits = std::bit_cast<uint64_t>(x);
  bits += 0x3ff0000000000000 - 0x3fe6a09e667f3bcd;  // moves sqrt(1/2) to an exponent's start
  const auto exponent = static_cast<int64_t>(bits >> 52) - 1023;
  const double f = std::bit_cast<double>((bits & 0x000fffffffffffff) + 0x3fe6a09e667f3bcd);
  const double z = (f - 1) / (f + 1), square = z * z;
  double series = 0;
  for (int n = 21; n >= 3; n -= 2) series = series * square + 1.0 / n;
  // ln 2 in two parts: the first times any exponent is exact.
  const double e = static_cast<double>(exponent), high = 0x1.62e42fefa3800p-1,
               low = 0x1.ef35793c76730p-45;
  return e * high + (2 * z + (2 * z * square * series + e * low));
}

}  // namespace polyhead
