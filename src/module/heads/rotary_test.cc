// The angles of rotary positions: sines against libm's in long double, frequencies against powl.
#include "module/heads/rotary.h"

#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include "base/sine_cosine.h"
#include "testing/machine.h"
#include "testing/random.h"
#include "testing/tolerance.h"

namespace polyhead {
namespace {

constexpr long double kTwoPi = 6.28318530717958647692528676655900577L;

long double angle_of(uint64_t phase) { return static_cast<long double>(phase) * 0x1p-64L * kTwoPi; }

// The worst error over many phases, in units of 2^-53.
double worst_error(const std::vector<uint64_t>& phases) {
  long double worst = 0;
  for (const uint64_t phase : phases) {
    const SineCosine got = sine_cosine(phase);
    worst = std::max(worst, std::abs(got.sine - std::sin(angle_of(phase))));
    worst = std::max(worst, std::abs(got.cosine - std::cos(angle_of(phase))));
  }
  return static_cast<double>(worst * 0x1p53L);
}

TEST(SineCosine, AreLibmsInLongDouble) {
  oracle::Random random(1);
  std::vector<uint64_t> phases;
  for (int n = 0; n < 200'000; ++n) phases.push_back(random.bits() >> (n % 64));
  for (uint64_t eighth = 0; eighth < 8; ++eighth) {
    for (int64_t step = -50; step <= 50; ++step) {
      phases.push_back((eighth << 61) + static_cast<uint64_t>(step));
    }
  }
  EXPECT_LT(worst_error(phases), oracle::kSineRoundings);
}

TEST(SineCosine, WholeQuartersAreExact) {
  const double sines[] = {0, 1, 0, -1};
  for (uint64_t quarter = 0; quarter < 4; ++quarter) {
    const SineCosine got = sine_cosine(quarter << 62);
    EXPECT_EQ(got.sine, sines[quarter]);
    EXPECT_EQ(got.cosine, sines[(quarter + 1) % 4]);
  }
}

// Turns from one position to the next by the formulas of polyhead/rope.h.
long double turns(const Rope& rope, int64_t pair) {
  const auto dim = static_cast<long double>(rope.rotary_dim);
  long double base = rope.base, factor = rope.factor;
  if (rope.scaling == RopeScaling::kNtk) base *= std::pow(factor, dim / (dim - 2));
  const long double plain = 1 / (std::pow(base, 2 * static_cast<long double>(pair) / dim) * kTwoPi);
  if (rope.scaling == RopeScaling::kLinear) return plain / factor;
  if (rope.scaling != RopeScaling::kLlama3) return plain;
  // As LLaMA 3's code has it, by wavelengths.
  const auto length = static_cast<long double>(rope.original_length);
  const long double wavelength = 1 / plain;
  if (wavelength < length / rope.high_freq_factor) return plain;
  if (wavelength > length / rope.low_freq_factor) return plain / factor;
  const long double smooth =
      (length / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return (1 - smooth) * plain / factor + smooth * plain;
}

std::vector<Rope> ropes() {
  std::vector<Rope> all;
  for (const int64_t dim : {2, 4, 6, 64, 80, 128, 1000}) {
    for (const double base : {1.0, 100.0, 1e4, 5e5, 1e6, 1e12}) {
      all.push_back({.pairs = RopePairs::kHalves, .base = base, .rotary_dim = dim});
      all.back().scaling = RopeScaling::kNone;
      for (const RopeScaling scaling : {RopeScaling::kLinear, RopeScaling::kLlama3}) {
        all.push_back(all.back());
        all.back().scaling = scaling;
        all.back().factor = 8;
      }
      if (dim == 2) continue;  // whose one pair no base moves
      all.push_back(all.back());
      all.back().scaling = RopeScaling::kNtk;
      all.back().factor = 3.7;
    }
  }
  return all;
}

// powl itself errs by a few roundings of long double; llama3's blend by one of double.
TEST(RotarySteps, AreThePowersOfTheBase) {
  for (const Rope& rope : ropes()) {
    const std::vector<uint64_t> steps = rotary_steps(rope);
    ASSERT_EQ(steps.size(), static_cast<size_t>(rope.rotary_dim / 2));
    const bool blends = rope.scaling == RopeScaling::kLlama3;
    for (size_t i = 0; i < steps.size(); ++i) {
      const long double want = turns(rope, static_cast<int64_t>(i)) * 0x1p64L;
      const long double allowed = 1 + want * (blends ? oracle::kBlendRoundings * 0x1p-53L
                                                     : oracle::kPowerRoundings * 0x1p-64L);
      EXPECT_LE(std::abs(static_cast<long double>(steps[i]) - want), allowed)
          << rope.rotary_dim << " numbers, base " << rope.base << ", scaling "
          << static_cast<int>(rope.scaling) << ", pair " << i;
    }
  }
}

TEST(RotarySteps, TheFloatingPointEnvironmentDoesNotMatter) {
  const Rope rope{.pairs = RopePairs::kHalves, .base = 5e5, .rotary_dim = 128};
  const std::vector<uint64_t> expected = rotary_steps(rope);
  std::fesetround(FE_UPWARD);
  const std::vector<uint64_t> upward = rotary_steps(rope);
  std::fesetround(FE_TONEAREST);
  EXPECT_EQ(upward, expected);
}

// The bits that every machine must have: the arithmetic is all our own.
TEST(RotarySteps, AreTheSameOnEveryMachine) {
  const std::vector<uint64_t> steps =
      rotary_steps({.pairs = RopePairs::kHalves, .base = 10000, .rotary_dim = 8});
  EXPECT_EQ(steps, (std::vector<uint64_t>{0x28be60db9391054aU, 0x041309af8ec1b3bbU,
                                          0x00684dc4c179c52cU, 0x000a6e2d468c2d51U}));
}

TEST(RotaryRow, HoldsWhatTheKernelReads) {
  const std::vector<uint64_t> steps = {uint64_t{1} << 62, uint64_t{1} << 61};
  double cosine[4] = {}, sine[4] = {};
  rotary_row(steps, 1, /*interleaved=*/false, Turn::kForward, cosine, sine);
  EXPECT_EQ(cosine[0], 0);
  EXPECT_EQ(sine[0], 1);
  EXPECT_EQ(cosine[2], 0);
  const double eighth = sine[1];
  rotary_row(steps, 1, /*interleaved=*/true, Turn::kBack, cosine, sine);
  EXPECT_EQ(sine[0], 1);
  EXPECT_EQ(sine[1], -1);
  EXPECT_EQ(sine[2], eighth);
  EXPECT_EQ(sine[3], -eighth);
  EXPECT_EQ(cosine[2], cosine[3]);
}

}  // namespace
}  // namespace polyhead
