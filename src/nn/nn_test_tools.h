// What the tests of this folder share.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <polyhead/error.h>
#include <polyhead/nn.h>
#include "base/message.h"
#include "testing/compare.h"
#include "testing/elements.h"
#include "testing/random.h"
#include "testing/tolerance.h"

namespace polyhead::nn {

using oracle::Index;

// Numbers that float32 holds exactly, in either dtype: both compute on the same inputs.
inline Tensor random_tensor(DType dtype, Shape shape, uint64_t seed) {
  oracle::Random random(seed);
  Tensor tensor(dtype, shape);
  oracle::fill_with(tensor, [&](const Index&) { return static_cast<float>(random.normal()); });
  return tensor;
}
inline Tensor random_tensor(DType dtype, std::initializer_list<int64_t> shape, uint64_t seed) {
  return random_tensor(dtype, Shape(shape.begin(), shape.size()), seed);
}

inline Tensor random_ids(std::initializer_list<int64_t> shape, int64_t limit, uint64_t seed) {
  oracle::Random random(seed);
  Tensor ids(DType::kInt64, shape);
  for (int64_t i = 0; i < ids.numel(); ++i) ids.data_as<int64_t>()[i] = random.below(limit);
  return ids;
}

// Within a few roundings of the tensor's largest number.
inline void expect_close(const ConstTensorView& got, const ConstTensorView& truth,
                         const std::string& suite, const std::string& what) {
  Tensor wide(DType::kFloat64, truth.shape()), budget(DType::kFloat64, truth.shape());
  double largest = 0;
  oracle::fill_with(wide, [&](const Index& at) {
    largest = std::max(largest, std::abs(oracle::read(truth, at)));
    return oracle::read(truth, at);
  });
  oracle::fill(budget, oracle::kGradientRoundings * oracle::unit_roundoff(got.dtype()) * largest);
  oracle::expect_within_budget(got, wide, budget, {suite, what, oracle::Zeros::kPlausible});
}

// d loss / d x for loss = sum(y * d_y), each by five points of fourth order.
inline void expect_gradient(const std::function<double()>& loss, const TensorView& x,
                            const ConstTensorView& gradient, const std::string& what) {
  const double h = oracle::kDifferenceStep;
  oracle::for_each_index(x.shape(), [&](const Index& at) {
    const double before = oracle::read(x, at);
    const auto moved = [&](double by) {
      oracle::write(x, at, before + by);
      return loss();
    };
    const double slope = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h);
    moved(0);
    const double error = std::abs(slope - oracle::read(gradient, at));
    EXPECT_TRUE(error <= oracle::kDifferenceBudget * 64)
        << what << " " << oracle::index_string(at, x.rank()) << ": " << slope << " by differences, "
        << oracle::read(gradient, at) << " by the backward";
  });
}

template <class Exception, class Call>
std::string refusal(const Call& call) {
  try {
    call();
  } catch (const Exception& error) {
    return error.what();
  }
  return "accepted";
}

}  // namespace polyhead::nn
