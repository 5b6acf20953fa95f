// exp2 and the transpose of the vector layer, on every ISA this CPU has.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <span>
#include <type_traits>
#include <vector>

#include "simd/regions.h"

#define POLYHEAD_KERNEL_BODY "simd/vector_test.body.h"
#include "simd/for_each_isa.h"

namespace polyhead {
namespace {

std::vector<Isa> isas_here() {
  std::vector<Isa> isas;
  for (Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512, Isa::kNeon}) {
    if (cpu_has(isa)) isas.push_back(isa);
  }
  return isas;
}

template <class T>
std::vector<T> exp2_on(Isa isa, const std::vector<T>& t) {
  std::vector<T> out(t.size());
  POLYHEAD_ON_ISA(isa, exp2_all(t.data(), out.data(), t.size()));
  return out;
}

// All of the range a kernel asks for, dense around 0, where the subtraction of the floor rounds.
template <class T>
std::vector<T> arguments() {
  constexpr T kInf = std::numeric_limits<T>::infinity();
  std::vector<T> t = {0,
                      T{-0.0},
                      1,
                      -1,
                      T{-0.5},
                      23,
                      -125,
                      -126,
                      -1020,
                      -1021,
                      -1022,
                      -5000,
                      -kInf,
                      std::numeric_limits<T>::denorm_min(),
                      -std::numeric_limits<T>::denorm_min()};
  std::mt19937_64 generator(7);
  std::uniform_real_distribution<double> wide(-140, 24), narrow(-1, 0), exponent(-60, 0);
  for (int i = 0; i < 300'000; ++i) {
    t.push_back(static_cast<T>(wide(generator)));
    t.push_back(static_cast<T>(narrow(generator)));
    t.push_back(static_cast<T>(-std::exp2(exponent(generator))));
  }
  return t;
}

template <class T>
void expect_accurate(Isa isa) {
  const std::vector<T> t = arguments<T>(), got = exp2_on(isa, t);
  const T flush = sizeof(T) == 4 ? -125 : -1021;
  const double unit = sizeof(T) == 4 ? 0x1p-24 : 0x1p-53;
  double worst = 0;
  for (size_t i = 0; i < t.size(); ++i) {
    if (t[i] < flush) {
      ASSERT_EQ(got[i], 0) << isa_name(isa) << " 2^" << t[i];
      continue;
    }
    const long double truth = std::exp2(static_cast<long double>(t[i]));
    worst = std::max(worst, static_cast<double>(std::abs(got[i] - truth) / truth) / unit);
  }
  // Float: 1.4 of the polynomial and 1 of rounding; double: rounding alone. Measured 2.3 and 1.6;
  // the baseline rounds twice in every step.
  EXPECT_LE(worst, isa == Isa::kBaseline ? 4 : 3) << isa_name(isa);
}

TEST(Exp2, AccurateOnEveryIsa) {
  for (Isa isa : isas_here()) {
    expect_accurate<float>(isa);
    expect_accurate<double>(isa);
  }
}

template <class T>
void expect_exact_points(Isa isa) {
  const std::vector<T> got = exp2_on<T>(isa, {0, T{-0.0}, 10, -20});
  EXPECT_EQ(got[0], 1) << "a row's maximum has probability 1";
  EXPECT_EQ(got[1], 1);
  EXPECT_EQ(got[2], 1024);
  EXPECT_EQ(got[3], std::ldexp(T{1}, -20));
}

TEST(Exp2, IntegersAreExact) {
  for (Isa isa : isas_here()) {
    expect_exact_points<float>(isa);
    expect_exact_points<double>(isa);
  }
}

// A NaN carries a payload in its low bits, wherever it comes from.
template <class T>
void expect_nan_stays(Isa isa) {
  using Word = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  const auto quiet = std::bit_cast<Word>(std::numeric_limits<T>::quiet_NaN());
  constexpr Word sign = Word{1} << (8 * sizeof(T) - 1);
  std::vector<T> nans;
  for (Word payload = 0; payload < 5000; ++payload) {
    nans.push_back(std::bit_cast<T>(quiet | payload));
    nans.push_back(std::bit_cast<T>(quiet | sign | payload));
  }
  for (T result : exp2_on(isa, nans)) ASSERT_TRUE(std::isnan(result)) << isa_name(isa);
}

TEST(Exp2, NanStays) {
  for (Isa isa : isas_here()) {
    expect_nan_stays<float>(isa);
    expect_nan_stays<double>(isa);
  }
}

// docs/canonical_order.md, section 4, one number at a time.
template <class T>
T exp2_as_specified(T t, std::span<const T> coefficients, T flush) {
  if (t < flush) return 0;
  const T w = std::floor(t), rounded = t - w;
  const T f = w + rounded > t ? std::nextafter(rounded, T{-1}) : rounded;
  T p = coefficients[0];
  for (T c : coefficients.subspan(1)) p = std::fma(p, f, c);
  return std::ldexp(p, static_cast<int>(w));
}

template <class T>
void expect_specified_bits(Isa isa, std::span<const T> coefficients, T flush) {
  const std::vector<T> t = arguments<T>(), got = exp2_on(isa, t);
  for (size_t i = 0; i < t.size(); ++i) {
    const T want = exp2_as_specified(t[i], coefficients, flush);
    ASSERT_EQ(std::memcmp(&got[i], &want, sizeof(T)), 0) << isa_name(isa) << " 2^" << t[i];
  }
}

TEST(Exp2, TheSpecifiedBitsOnEveryIsaWithFma) {
  for (Isa isa : isas_here()) {
    if (isa == Isa::kBaseline) continue;
    expect_specified_bits<float>(isa, baseline::kExp2Float, -125);
    expect_specified_bits<double>(isa, baseline::kExp2Double, -1021);
  }
}

template <class T>
void expect_transposed(Isa isa) {
  std::vector<T> matrix(16 * 16);
  for (size_t i = 0; i < matrix.size(); ++i) matrix[i] = static_cast<T>(i);
  const size_t n = POLYHEAD_ON_ISA(isa, transpose_square(matrix.data()));
  for (size_t r = 0; r < n; ++r) {
    for (size_t c = 0; c < n; ++c) ASSERT_EQ(matrix[r * n + c], static_cast<T>(c * n + r));
  }
}

TEST(Transpose, OnEveryIsa) {
  for (Isa isa : isas_here()) {
    expect_transposed<float>(isa);
    expect_transposed<double>(isa);
  }
}

}  // namespace
}  // namespace polyhead
