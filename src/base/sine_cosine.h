// Sine and cosine in double without libm, whose bits depend on the machine.
#pragma once

#include <cstdint>

namespace polyhead {

struct SineCosine {
  double sine = 0, cosine = 0;
};

// Of the angle phase * 2^-64 turns: whole numbers wrap as angles do, so that nothing is rounded
// when a step is multiplied by a position. The nearest quarter turn is taken off; what is left, |x|
// <= pi / 4, goes through the Taylor series, to x^17 and x^16 exact to double's rounding. Error
// under 2^-52.
inline SineCosine sine_cosine(uint64_t phase) {
  constexpr double kTurn = 0x1.921fb54442d18p+2 * 0x1p-64;  // 2 pi radians
  const uint64_t quarter = (phase + (uint64_t{1} << 61)) >> 62;
  const double x = static_cast<double>(static_cast<int64_t>(phase - (quarter << 62))) * kTurn;
  const double square = x * x;
  // 1 / n!, from the term of x^17 to that of x^3, and from x^16 to x^2.
  constexpr double kSine[] = {
      0x1.952c77030ad4ap-49, -0x1.ae7f3e733b81fp-41, 0x1.6124613a86d09p-33, -0x1.ae64567f544e4p-26,
      0x1.71de3a556c734p-19, -0x1.a01a01a01a01ap-13, 0x1.1111111111111p-7,  -0x1.5555555555555p-3};
  constexpr double kCosine[] = {
      0x1.ae7f3e733b81fp-45, -0x1.93974a8c07c9dp-37, 0x1.1eed8eff8d898p-29, -0x1.27e4fb7789f5cp-22,
      0x1.a01a01a01a01ap-16, -0x1.6c16c16c16c17p-10, 0x1.5555555555555p-5,  -0x1p-1};
  double sine = kSine[0], cosine = kCosine[0];
  for (int n = 1; n < 8; ++n) {
    sine = sine * square + kSine[n];
    cosine = cosine * square + kCosine[n];
  }
  sine = x + x * (square * sine);
  cosine = 1 + square * cosine;
  switch (quarter) {
    case 1:
      return {cosine, -sine};
    case 2:
      return {-sine, -cosine};
    case 3:
      return {-cosine, sine};
    default:
      return {sine, cosine};
  }
}

}  // namespace polyhead
