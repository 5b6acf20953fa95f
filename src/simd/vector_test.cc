// exp2 and the transpose of the vector layer, on every ISA this CPU has.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "simd/isa.h"

#define POLYHEAD_KERNEL_BODY "simd/vector_test.body.h"
#include "simd/for_each_isa.h"

namespace polyhead {
namespace {

std::vector<Isa> isas_here() {
  std::vector<Isa> isas;
  for (Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512}) {
    if (cpu_has(isa)) isas.push_back(isa);
  }
  return isas;
}

template <class T>
std::vector<T> exp2_on(Isa isa, const std::vector<T>& t) {
  std::vector<T> out(t.size());
#if defined(__x86_64__)
  if (isa == Isa::kAvx512) avx512::exp2_all(t.data(), out.data(), t.size());
  if (isa == Isa::kAvx2) avx2::exp2_all(t.data(), out.data(), t.size());
#endif
  if (isa == Isa::kBaseline) baseline::exp2_all(t.data(), out.data(), t.size());
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
  const T nan = std::numeric_limits<T>::quiet_NaN();
  const std::vector<T> got = exp2_on<T>(isa, {0, T{-0.0}, 10, -20, nan});
  EXPECT_EQ(got[0], 1) << "a row's maximum has probability 1";
  EXPECT_EQ(got[1], 1);
  EXPECT_EQ(got[2], 1024);
  EXPECT_EQ(got[3], std::ldexp(T{1}, -20));
  EXPECT_TRUE(std::isnan(got[4]));
}

TEST(Exp2, IntegersAreExactAndNanStays) {
  for (Isa isa : isas_here()) {
    expect_exact_points<float>(isa);
    expect_exact_points<double>(isa);
  }
}

template <class T>
void expect_same_bits() {
  const std::vector<T> t = arguments<T>();
  const std::vector<T> a = exp2_on(Isa::kAvx2, t), b = exp2_on(Isa::kAvx512, t);
  for (size_t i = 0; i < t.size(); ++i) {
    ASSERT_EQ(std::memcmp(&a[i], &b[i], sizeof(T)), 0) << "2^" << t[i];
  }
}

TEST(Exp2, SameBitsOnAvx2AndAvx512) {
  if (!cpu_has(Isa::kAvx2) || !cpu_has(Isa::kAvx512)) GTEST_SKIP() << "this CPU has not both";
  expect_same_bits<float>();
  expect_same_bits<double>();
}

template <class T>
void expect_transposed(Isa isa) {
  std::vector<T> matrix(16 * 16);
  for (size_t i = 0; i < matrix.size(); ++i) matrix[i] = static_cast<T>(i);
  size_t n = 0;
#if defined(__x86_64__)
  if (isa == Isa::kAvx512) n = avx512::transpose_square(matrix.data());
  if (isa == Isa::kAvx2) n = avx2::transpose_square(matrix.data());
#endif
  if (isa == Isa::kBaseline) n = baseline::transpose_square(matrix.data());
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
