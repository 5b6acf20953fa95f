// The normal distribution inside GELU against the C library's erfc in long double.
#include <cmath>
#include <limits>

#include <polyhead/runtime.h>
#include "nn/nn_test_tools.h"

namespace polyhead::nn {
namespace {

class Gelu : public testing::TestWithParam<std::string> {
 protected:
  Gelu() { force_isa(GetParam()); }
  ~Gelu() override { force_isa(available_isas().front()); }
};
INSTANTIATE_TEST_SUITE_P(Nn, Gelu, testing::ValuesIn(available_isas()),
                         [](const auto& each) { return each.param; });

long double distribution(long double x) { return std::erfc(-x / std::sqrt(2.0L)) / 2; }
long double density(long double x) {
  return std::exp(-x * x / 2) / std::sqrt(2 * std::acos(-1.0L));
}

// x from -limit to limit, forward and derivative.
template <class T>
struct Sweep {
  Tensor x, y, slope;

  explicit Sweep(double limit, int64_t count = 20001)
      : x(dtype_of<T>(), {count}), y(x.dtype(), x.shape()), slope(x.dtype(), x.shape()) {
    Tensor ones(x.dtype(), x.shape());
    oracle::fill(ones, 1);
    oracle::fill_with(x, [&](const Index& at) {
      return limit * (2 * static_cast<double>(at[0]) / static_cast<double>(count - 1) - 1);
    });
    gelu_into(x, y);
    gelu_backward(x, ones, slope);
  }
};

// The error of x * Phi(x) in roundings of what it is made of: relative in the upper half; in the
// lower tail the rounding of x^2 / 2 in the exponent weighs x^2 times as much.
template <class T>
void expect_accurate(const std::string& suite) {
  const Sweep<T> sweep(12);
  const double unit = oracle::unit_roundoff(dtype_of<T>());
  Tensor truth(DType::kFloat64, sweep.x.shape()), budget(DType::kFloat64, sweep.x.shape());
  Tensor slope(DType::kFloat64, sweep.x.shape()), slope_budget(DType::kFloat64, sweep.x.shape());
  for (int64_t i = 0; i < sweep.x.numel(); ++i) {
    const auto x = static_cast<long double>(oracle::read(sweep.x, {i}));
    const auto roundings = static_cast<double>(8 + (x < 0 ? x * x : 0));
    truth.data_as<double>()[i] = static_cast<double>(x * distribution(x));
    budget.data_as<double>()[i] = roundings * unit * std::abs(truth.data_as<double>()[i]);
    slope.data_as<double>()[i] = static_cast<double>(distribution(x) + x * density(x));
    slope_budget.data_as<double>()[i] =
        roundings * unit * static_cast<double>(distribution(x) + std::abs(x) * density(x));
  }
  oracle::expect_within_budget(sweep.y, truth, budget, {suite + ".y", isa()});
  oracle::expect_within_budget(sweep.slope, slope, slope_budget, {suite + ".slope", isa()});
}

TEST_P(Gelu, IsAccurateDownTheLowerTail) {
  expect_accurate<float>("nn.gelu.float32");
  expect_accurate<double>("nn.gelu.float64");
}

TEST_P(Gelu, IsMonotonousWhereItShouldBeAndEndsExactly) {
  const Sweep<float> sweep(40);
  const float* y = sweep.y.data_as<float>();
  EXPECT_EQ(y[sweep.y.numel() - 1], 40);
  EXPECT_EQ(y[0], 0);
  EXPECT_EQ(y[sweep.y.numel() / 2], 0);
  for (int64_t i = sweep.y.numel() / 2; i + 1 < sweep.y.numel(); ++i) ASSERT_LT(y[i], y[i + 1]);
}

TEST_P(Gelu, OfNoNumberIsNoNumber) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const float values[] = {
      std::numeric_limits<float>::quiet_NaN(), kInf, 0.0F, 0x1p-133F, 3e38F, -3e38F};
  const Tensor y = gelu(ConstTensorView(values, {6}));
  EXPECT_TRUE(std::isnan(y.data_as<float>()[0]));
  EXPECT_EQ(y.data_as<float>()[1], kInf);
  EXPECT_EQ(y.data_as<float>()[2], 0);
  EXPECT_GT(y.data_as<float>()[3], 0);
  EXPECT_EQ(y.data_as<float>()[4], 3e38F);
  EXPECT_EQ(y.data_as<float>()[5], 0);
}

}  // namespace
}  // namespace polyhead::nn
