// The gradients of PackedLinear against plain loops in double, and the bits they promise.
#include <gtest/gtest.h>

#include <cfenv>
#include <cmath>
#include <string>
#include <thread>
#include <vector>

#include <polyhead/error.h>
#include <polyhead/linear.h>
#include <polyhead/runtime.h>
#include "testing/compare.h"
#include "testing/elements.h"
#include "testing/guarded.h"
#include "testing/random.h"
#include "testing/tolerance.h"

namespace polyhead {
namespace {

using oracle::GuardedTensor;
using oracle::Index;
using oracle::Storage;

void fill_random(const TensorView& view, uint64_t seed) {
  oracle::Random random(seed);
  oracle::fill_with(view, [&](const Index&) { return random.normal(); });
}

Tensor random_tensor(DType dtype, std::initializer_list<int64_t> shape, uint64_t seed) {
  Tensor tensor(dtype, shape);
  fill_random(tensor, seed);
  return tensor;
}

// a [m, k] . b [k, n] in double and its budget: errors of a chain grow like a random walk.
struct Product {
  Tensor truth, budget;  // [m, n]

  Product(const ConstTensorView& a, const ConstTensorView& b)
      : truth(DType::kFloat64, {a.size(0), b.size(1)}),
        budget(DType::kFloat64, {a.size(0), b.size(1)}) {
    const int64_t k = a.size(1);
    const double roundings = std::sqrt(static_cast<double>(k)) + 2;
    oracle::for_each_index(truth.shape(), [&](const Index& at) {
      double sum = 0, magnitude = 0;
      for (int64_t i = k - 1; i >= 0; --i) {  // not our order, which in float64 has no error
        const double term = oracle::read(a, {at[0], i}) * oracle::read(b, {i, at[1]});
        sum += term;
        magnitude += std::abs(term);
      }
      oracle::write(truth, at, sum);
      oracle::write(budget, at, roundings * oracle::unit_roundoff(a.dtype()) * magnitude);
    });
  }
};

Tensor ones(DType dtype, int64_t n) {
  Tensor tensor(dtype, {1, n});
  oracle::fill(tensor, 1);
  return tensor;
}

class OnEveryIsa : public testing::TestWithParam<std::string> {
 protected:
  OnEveryIsa() { force_isa(GetParam()); }
  ~OnEveryIsa() override { force_isa(available_isas().front()); }
};
INSTANTIATE_TEST_SUITE_P(Linear, OnEveryIsa, testing::ValuesIn(available_isas()),
                         [](const auto& each) { return each.param; });

// All sizes around lanes, tiles and panels, and around a pass of rows.
constexpr int64_t kSizes[][3] = {{1, 1, 1},    {2, 3, 5},    {7, 16, 24},   {8, 48, 48},
                                 {9, 49, 47},  {5, 97, 200}, {64, 31, 17},  {130, 24, 100},
                                 {511, 5, 50}, {512, 9, 7},  {513, 50, 49}, {1030, 13, 60}};

TEST_P(OnEveryIsa, GradientsAreWithinBudgetOfDouble) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat64}) {
    const std::string name = dtype_name(dtype);
    for (const auto& [m, n, k] : kSizes) {
      const Tensor x = random_tensor(dtype, {m, k}, 1), d_y = random_tensor(dtype, {m, n}, 2),
                   weight = random_tensor(dtype, {n, k}, 3);
      Tensor d_x(dtype, {m, k}), d_weight(dtype, {n, k}), d_bias(dtype, {n});
      PackedLinear(weight, {}).input_gradient(d_y, d_x);
      linear_weight_gradient(x, d_y, d_weight, d_bias);
      const std::string what = GetParam() + " " + d_y.shape_string() + weight.shape_string();
      const auto zeros = oracle::Zeros::kPlausible;
      const Product input(d_y, weight), outer(d_y.view().transposed(0, 1), x);
      const Product sums(ones(dtype, m), d_y);
      oracle::expect_within_budget(d_x, input.truth, input.budget,
                                   {"linear.d_x." + name, what, zeros});
      oracle::expect_within_budget(d_weight, outer.truth, outer.budget,
                                   {"linear.d_weight." + name, what, zeros});
      oracle::expect_within_budget(d_bias, sums.truth.view().select(0, 0),
                                   sums.budget.view().select(0, 0),
                                   {"linear.d_bias." + name, what, zeros});
    }
  }
}

struct Gradients {
  Tensor d_x, d_weight, d_bias;
};

Gradients gradients(const Tensor& x, const Tensor& d_y, const Tensor& weight) {
  const int64_t n = weight.size(0), k = weight.size(1);
  Gradients result{Tensor(x.dtype(), x.shape()), Tensor(x.dtype(), {n, k}), Tensor(x.dtype(), {n})};
  PackedLinear(weight, {}).input_gradient(d_y, result.d_x);
  linear_weight_gradient(x, d_y, result.d_weight, result.d_bias);
  return result;
}

void expect_same(const Gradients& a, const Gradients& b, const std::string& what) {
  oracle::expect_same_bits(a.d_x, b.d_x, what + " d_x");
  oracle::expect_same_bits(a.d_weight, b.d_weight, what + " d_weight");
  oracle::expect_same_bits(a.d_bias, b.d_bias, what + " d_bias");
}

TEST(LinearGradient, BitsDoNotDependOnThreadsOrIsa) {
  const int threads = num_threads();
  for (const DType dtype : {DType::kFloat32, DType::kFloat64}) {
    const Tensor x = random_tensor(dtype, {3, 230, 70}, 1);
    const Tensor d_y = random_tensor(dtype, {3, 230, 110}, 2);
    const Tensor weight = random_tensor(dtype, {110, 70}, 3);
    const Gradients expected = gradients(x, d_y, weight);
    for (const std::string& name : available_isas()) {
      if (name == "baseline") continue;
      force_isa(name);
      for (const int n : {1, 2, 3, 7}) {
        set_num_threads(n);
        expect_same(gradients(x, d_y, weight), expected, name + ", threads: " + std::to_string(n));
      }
    }
    set_num_threads(threads);
    force_isa(available_isas().front());
  }
}

// What the header says of the order, by the loops it stands for.
TEST_P(OnEveryIsa, EachNumberIsOneChain) {
  if (GetParam() == "baseline") return;
  const int64_t m = 1100, n = 3, k = 4;
  const Tensor x = random_tensor(DType::kFloat32, {m, k}, 1);
  const Tensor d_y = random_tensor(DType::kFloat32, {m, n}, 2);
  Tensor d_weight = random_tensor(DType::kFloat32, {n, k}, 3), expected(d_weight.view());
  Tensor d_bias = random_tensor(DType::kFloat32, {n}, 4), expected_bias(d_bias.view());
  linear_weight_gradient(x, d_y, d_weight, d_bias, true);
  for (int64_t row = 0; row < n; ++row) {
    float sum = 0;
    for (int64_t i = 0; i < m; ++i) sum += d_y.data_as<float>()[i * n + row];
    expected_bias.data_as<float>()[row] += sum;
    for (int64_t column = 0; column < k; ++column) {
      float chain = 0;
      for (int64_t i = 0; i < m; ++i) {
        chain =
            std::fma(d_y.data_as<float>()[i * n + row], x.data_as<float>()[i * k + column], chain);
      }
      expected.data_as<float>()[row * k + column] += chain;
    }
  }
  oracle::expect_same_bits(d_weight, expected, "d_weight");
  oracle::expect_same_bits(d_bias, expected_bias, "d_bias");
}

// [batch, len, features] -> [batch, heads, len, features / heads], guarded, laid out as `storage`.
GuardedTensor by_heads(const Tensor& rows, int64_t heads, Storage storage) {
  const int64_t dim = rows.size(2) / heads;
  GuardedTensor split(rows.dtype(), {rows.size(0), heads, rows.size(1), dim}, storage);
  oracle::fill_with(split.view(), [&](const Index& at) {
    return oracle::read(rows.view(), {at[0], at[2], at[1] * dim + at[3]});
  });
  return split;
}

void expect_same_by_heads(const GuardedTensor& got, const Tensor& rows, const std::string& what) {
  EXPECT_TRUE(got.intact()) << what;
  const GuardedTensor expected = by_heads(rows, got.view().size(1), Storage::kContiguous);
  oracle::expect_same_bits(got.view(), expected.view(), what);
}

TEST_P(OnEveryIsa, OperandsLieAnywhere) {
  const DType dtype = DType::kFloat32;
  const int64_t batch = 3, len = 190, heads = 3, d = 24, k = 120;
  const Tensor x = random_tensor(dtype, {batch, len, heads * k}, 1);
  const Tensor d_y = random_tensor(dtype, {batch, len, heads * d}, 2);
  const Tensor weight = random_tensor(dtype, {heads * d, heads * k}, 3);
  const Gradients expected = gradients(x, d_y, weight);
  const PackedLinear linear(weight, {});
  for (const Storage storage : oracle::kStorages) {
    const std::string what = "storage " + std::to_string(static_cast<int>(storage));
    GuardedTensor d_y_heads = by_heads(d_y, heads, storage), x_heads = by_heads(x, heads, storage);
    d_y_heads.protect();
    x_heads.protect();
    GuardedTensor d_x(dtype, {batch, heads, len, k}, storage);
    GuardedTensor d_weight(dtype, {1, 1, heads * d, heads * k}, storage);
    Tensor d_bias(dtype, {heads * d});
    linear.input_gradient(d_y_heads.view(), d_x.view());
    const TensorView d_weight_view = d_weight.view().select(0, 0).select(0, 0);
    linear_weight_gradient(x_heads.view(), d_y_heads.view(), d_weight_view, d_bias);
    expect_same_by_heads(d_x, expected.d_x, what + " d_x");
    EXPECT_TRUE(d_weight.intact()) << what;
    oracle::expect_same_bits(d_weight_view, expected.d_weight, what + " d_weight");
    oracle::expect_same_bits(d_bias, expected.d_bias, what + " d_bias");
  }
}

TEST(LinearGradient, RankTwoIsOneBatch) {
  const Tensor x = random_tensor(DType::kFloat32, {1, 20, 30}, 1);
  const Tensor d_y = random_tensor(DType::kFloat32, {1, 20, 50}, 2);
  const Tensor weight = random_tensor(DType::kFloat32, {50, 30}, 3);
  const Gradients expected = gradients(x, d_y, weight);
  Tensor d_x(DType::kFloat32, {20, 30}), d_weight(DType::kFloat32, {50, 30});
  PackedLinear(weight, {}).input_gradient(d_y.view().select(0, 0), d_x);
  linear_weight_gradient(x.view().select(0, 0), d_y.view().select(0, 0), d_weight);
  oracle::expect_same_bits(d_x, expected.d_x.view().select(0, 0), "d_x");
  oracle::expect_same_bits(d_weight, expected.d_weight, "d_weight");
}

TEST(LinearGradient, FirstChoosesRowsOfTheWeight) {
  const Tensor d_y = random_tensor(DType::kFloat32, {2, 9, 40}, 1);
  const Tensor weight = random_tensor(DType::kFloat32, {100, 60}, 2);
  const PackedLinear linear(weight, {});
  for (const int64_t first : {0, 1, 48, 60}) {
    Tensor d_x(DType::kFloat32, {2, 9, 60}), expected(DType::kFloat32, {2, 9, 60});
    linear.input_gradient(d_y, d_x, first);
    PackedLinear(weight.view().narrow(0, first, 40), {}).input_gradient(d_y, expected);
    oracle::expect_same_bits(d_x, expected, "first " + std::to_string(first));
  }
}

TEST(LinearGradient, AccumulateAddsTheFinishedSum) {
  for (const int64_t m : {10, 1300}) {
    const Tensor x = random_tensor(DType::kFloat32, {m, 50}, 1);
    const Tensor d_y = random_tensor(DType::kFloat32, {m, 30}, 2);
    Tensor alone(DType::kFloat32, {30, 50}), alone_bias(DType::kFloat32, {30});
    linear_weight_gradient(x, d_y, alone, alone_bias);
    const Tensor old = random_tensor(DType::kFloat32, {30, 50}, 3);
    const Tensor old_bias = random_tensor(DType::kFloat32, {30}, 4);
    Tensor d_weight = old, d_bias = old_bias;
    linear_weight_gradient(x, d_y, d_weight, d_bias, true);
    for (int64_t i = 0; i < 30 * 50; ++i) alone.data_as<float>()[i] += old.data_as<float>()[i];
    for (int64_t i = 0; i < 30; ++i) alone_bias.data_as<float>()[i] += old_bias.data_as<float>()[i];
    oracle::expect_same_bits(d_weight, alone, "d_weight");
    oracle::expect_same_bits(d_bias, alone_bias, "d_bias");
  }
}

TEST(LinearGradient, OnlyWhatIsWanted) {
  const Tensor x = random_tensor(DType::kFloat32, {600, 50}, 1);
  const Tensor d_y = random_tensor(DType::kFloat32, {600, 30}, 2);
  const Gradients expected = gradients(x, d_y, random_tensor(DType::kFloat32, {30, 50}, 3));
  Tensor d_weight(DType::kFloat32, {30, 50}), d_bias(DType::kFloat32, {30});
  linear_weight_gradient(x, d_y, d_weight);
  linear_weight_gradient(x, d_y, {}, d_bias);
  oracle::expect_same_bits(d_weight, expected.d_weight, "d_weight");
  oracle::expect_same_bits(d_bias, expected.d_bias, "d_bias");
}

TEST(LinearGradient, TheBiasAloneTakesNoMemoryForX) {
  const int64_t rows = 3, wide = int64_t{1} << 50;  // more than there can be
  const float one = 1;
  const int64_t shape[] = {rows, wide}, strides[] = {0, 0};
  const Tensor d_y = random_tensor(DType::kFloat32, {rows, 4}, 1);
  Tensor d_bias(DType::kFloat32, {4}), expected(DType::kFloat32, {4});
  linear_weight_gradient({&one, DType::kFloat32, shape, strides}, d_y, {}, d_bias);
  linear_weight_gradient(d_y, d_y, {}, expected);
  oracle::expect_same_bits(d_bias, expected, "d_bias");
}

TEST(LinearGradient, TheCallersRoundingModeChangesNoBit) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat64}) {
    const Tensor x = random_tensor(dtype, {40, 50}, 1), d_y = random_tensor(dtype, {40, 30}, 2);
    const Tensor old = random_tensor(dtype, {30, 50}, 3), old_bias = random_tensor(dtype, {30}, 4);
    for (const bool accumulate : {false, true}) {
      Tensor expected = old, expected_bias = old_bias;
      linear_weight_gradient(x, d_y, expected, expected_bias, accumulate);
      for (const int mode : {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO}) {
        Tensor d_weight = old, d_bias = old_bias;
        ASSERT_EQ(std::fesetround(mode), 0);
        linear_weight_gradient(x, d_y, d_weight, d_bias, accumulate);
        const int after = std::fegetround();
        std::fesetround(FE_TONEAREST);
        EXPECT_EQ(after, mode) << "the caller's mode must be put back";
        oracle::expect_same_bits(d_weight, expected, "d_weight");
        oracle::expect_same_bits(d_bias, expected_bias, "d_bias");
      }
    }
  }
}

TEST(LinearGradient, WithoutRowsOrFeaturesTheSumsAreZero) {
  Tensor d_weight(DType::kFloat32, {3, 2}), d_bias(DType::kFloat32, {3});
  oracle::fill(d_weight, 7);
  oracle::fill(d_bias, 7);
  const Tensor none(DType::kFloat32, {0, 2}), d_none(DType::kFloat32, {0, 3});
  linear_weight_gradient(none, d_none, d_weight, d_bias, true);
  EXPECT_EQ(d_weight.data_as<float>()[5], 7);
  EXPECT_EQ(d_bias.data_as<float>()[2], 7);
  linear_weight_gradient(none, d_none, d_weight, d_bias);
  oracle::expect_same_bits(d_weight, Tensor(DType::kFloat32, {3, 2}), "d_weight");
  oracle::expect_same_bits(d_bias, Tensor(DType::kFloat32, {3}), "d_bias");
  Tensor d_x(DType::kFloat32, {4, 2});
  oracle::fill(d_x, 7);
  const PackedLinear linear(d_weight, {});
  linear.input_gradient(Tensor(DType::kFloat32, {4, 0}), d_x);
  oracle::expect_same_bits(d_x, Tensor(DType::kFloat32, {4, 2}), "d_x");
}

// After assign no copy of the old weight is left, whether input_gradient had been called or not.
TEST(LinearGradient, AssignIsFollowed) {
  const Tensor d_y = random_tensor(DType::kFloat32, {5, 70}, 1);
  const Tensor first = random_tensor(DType::kFloat32, {70, 90}, 2);
  const Tensor second = random_tensor(DType::kFloat32, {70, 90}, 3);
  const Tensor wider = random_tensor(DType::kFloat32, {70, 95}, 4);
  Tensor expected(DType::kFloat32, {5, 90}), d_x(DType::kFloat32, {5, 90});
  PackedLinear(second, {}).input_gradient(d_y, expected);
  for (const bool used : {false, true}) {
    PackedLinear linear(first, {});
    if (used) linear.input_gradient(d_y, d_x);
    linear.assign(second, {});
    linear.input_gradient(d_y, d_x);
    oracle::expect_same_bits(d_x, expected, used ? "used before" : "not used before");
    linear.assign(wider, {});
    Tensor d_wide(DType::kFloat32, {5, 95}), expected_wide(DType::kFloat32, {5, 95});
    linear.input_gradient(d_y, d_wide);
    PackedLinear(wider, {}).input_gradient(d_y, expected_wide);
    oracle::expect_same_bits(d_wide, expected_wide, "wider");
  }
  // A transposed view packs to the same bits as its copy.
  PackedLinear linear(first, {});
  linear.input_gradient(d_y, d_x);
  const Tensor columns(second.view().transposed(0, 1));
  linear.assign(columns.view().transposed(0, 1), {});
  linear.input_gradient(d_y, d_x);
  oracle::expect_same_bits(d_x, expected, "transposed");
}

// The first input_gradient packs; many threads may be the first.
TEST(LinearGradient, ConstCallsAreSafeFromManyThreads) {
  const Tensor d_y = random_tensor(DType::kFloat32, {4, 300}, 1);
  const Tensor weight = random_tensor(DType::kFloat32, {300, 400}, 2);
  Tensor expected(DType::kFloat32, {4, 400});
  PackedLinear(weight, {}).input_gradient(d_y, expected);
  for (int round = 0; round < 20; ++round) {
    const PackedLinear linear(weight, {});
    std::vector<Tensor> results(4, Tensor(DType::kFloat32, {4, 400}));
    std::vector<std::thread> threads;
    for (Tensor& d_x : results) {
      threads.emplace_back([&] { linear.input_gradient(d_y, d_x); });
    }
    for (std::thread& thread : threads) thread.join();
    for (const Tensor& d_x : results) oracle::expect_same_bits(d_x, expected, "one of the threads");
  }
}

template <class Call>
std::string refusal(const Call& call) {
  try {
    call();
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "accepted";
}

TEST(LinearGradient, Refusals) {
  const Tensor weight(DType::kFloat32, {3, 2}), x(DType::kFloat32, {4, 2}),
      y(DType::kFloat32, {4, 3}), wide(DType::kFloat64, {4, 2});
  Tensor d_x(DType::kFloat32, {4, 2}), d_weight(DType::kFloat32, {3, 2}), out(y.view());
  PackedLinear linear(weight, {});
  EXPECT_EQ(refusal([&] { linear.run(y, out); }),
            "PackedLinear::run: x: has 3 features; must be 2 wide");
  EXPECT_EQ(refusal([&] { linear.run(wide, out); }),
            "PackedLinear::run: x: dtype is float64; must be float32");
  EXPECT_EQ(refusal([&] { linear.run(x, out, 1); }),
            "PackedLinear::run: out: has 3 features, first is 1; must be within the 3 of the "
            "weight");
  EXPECT_EQ(refusal([&] { linear.run(x.view().narrow(0, 1, 2), out); }),
            "PackedLinear::run: out: has batch 1, length 4; must be batch 1, length 2, as x");
  EXPECT_EQ(refusal([&] { linear.run(x.view().select(0, 0), out); }),
            "PackedLinear::run: x: shape is [2]; must be [rows, features], [batch, len, features] "
            "or [batch, heads, len, head_dim]");
  EXPECT_EQ(refusal([&] { linear.input_gradient({}, d_x); }),
            "PackedLinear::input_gradient: d_y: not given; must be a tensor");
  EXPECT_EQ(refusal([&] { linear.input_gradient(y, out); }),
            "PackedLinear::input_gradient: d_x: has 3 features; must be 2 wide");
  EXPECT_EQ(refusal([&] { linear.input_gradient(y, d_x, -1); }),
            "PackedLinear::input_gradient: d_y: has 3 features, first is -1; must be within the 3 "
            "of the weight");
  EXPECT_EQ(refusal([&] { linear_weight_gradient(x, x, d_weight); }),
            "linear_weight_gradient: d_weight: shape is [3, 2]; must be [2, 2]");
  EXPECT_EQ(refusal([&] { linear_weight_gradient(x, y, d_weight, out); }),
            "linear_weight_gradient: d_bias: shape is [4, 3]; must be [3]");
  EXPECT_EQ(refusal([&] { linear_weight_gradient(wide, y, d_weight); }),
            "linear_weight_gradient: d_y: dtype is float32; must be float64");
  EXPECT_EQ(refusal([&] { linear_weight_gradient(Tensor(DType::kInt32, {1, 1}), y, d_weight); }),
            "linear_weight_gradient: x: dtype is int32; must be float32 or float64");
  EXPECT_EQ(refusal([&] { linear.assign(x.view().select(0, 0), {}); }),
            "PackedLinear::assign: weight: shape is [2]; must be [out_features, in_features]");
  EXPECT_EQ(refusal([&] { linear.assign(weight, Tensor(DType::kFloat32, {2})); }),
            "PackedLinear::assign: bias: shape is [2]; must be [3] (out_features)");
  EXPECT_EQ(refusal([&] { linear.assign(weight, Tensor(DType::kFloat64, {3})); }),
            "PackedLinear::assign: bias: dtype is float64; must be the weight's float32");
}

TEST(LinearGradient, OutputsHaveMemoryOfTheirOwn) {
  Tensor square(DType::kFloat32, {4, 4}), y(DType::kFloat32, {4, 4}), all(DType::kFloat32, {9, 4});
  const PackedLinear linear(square, {});
  const TensorView first = all.view().narrow(0, 0, 4), next = all.view().narrow(0, 3, 4);
  const std::string own = "; must be memory of its own";
  EXPECT_EQ(refusal([&] { linear.run(y, y); }), "PackedLinear::run: out: overlaps x" + own);
  EXPECT_EQ(refusal([&] { linear.run(first, next); }), "PackedLinear::run: out: overlaps x" + own);
  EXPECT_EQ(refusal([&] { linear.input_gradient(next, first); }),
            "PackedLinear::input_gradient: d_x: overlaps d_y" + own);
  EXPECT_EQ(refusal([&] { linear_weight_gradient(y, first, next); }),
            "linear_weight_gradient: d_weight: overlaps d_y" + own);
  EXPECT_EQ(refusal([&] { linear_weight_gradient(y, first, {}, y.view().select(0, 3)); }),
            "linear_weight_gradient: d_bias: overlaps x" + own);
  EXPECT_EQ(refusal([&] { linear_weight_gradient(y, y, first, first.select(0, 3)); }),
            "linear_weight_gradient: d_bias: overlaps d_weight" + own);
  linear.run(first, all.view().narrow(0, 4, 4));  // side by side
  const TensorView rows = all.view().narrow(0, 0, 8), left = rows.narrow(1, 0, 2);
  PackedLinear(Tensor(DType::kFloat32, {2, 2}), {}).run(left, rows.narrow(1, 2, 2));
}

TEST(LinearGradient, WithoutAWeightNothingIsAccepted) {
  const PackedLinear linear;
  Tensor one(DType::kFloat32, {1, 1});
  EXPECT_EQ(linear.in_features(), 0);
  EXPECT_THROW(linear.run(one, one), InvalidArgument);
  EXPECT_THROW(linear.input_gradient(one, one), InvalidArgument);
}

}  // namespace
}  // namespace polyhead
