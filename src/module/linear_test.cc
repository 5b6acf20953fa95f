// PackedLinear against plain loops in double, and the bits it promises.
#include <polyhead/linear.h>

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include <polyhead/runtime.h>

namespace polyhead {
namespace {

template <class T>
Tensor random_tensor(std::initializer_list<int64_t> shape, unsigned seed) {
  Tensor tensor(dtype_of<T>(), shape);
  std::mt19937 generator(seed);
  std::uniform_real_distribution<double> uniform(-1, 1);
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    tensor.data_as<T>()[i] = static_cast<T>(uniform(generator));
  }
  return tensor;
}

// |error| <= u * (k + 2) * sum |x w| + |b|, the classic bound of a dot product.
template <class T>
void expect_matches_double(const Tensor& x, const Tensor& weight, const Tensor& bias,
                           const Tensor& out) {
  const double unit = sizeof(T) == 4 ? 0x1p-24 : 0x1p-53;
  const int64_t k = weight.size(1), n = weight.size(0);
  for (int64_t m = 0; m < x.size(0) * x.size(1); ++m) {
    for (int64_t c = 0; c < n; ++c) {
      double sum = bias.defined() ? static_cast<double>(bias.data_as<T>()[c]) : 0;
      double magnitude = std::abs(sum);
      for (int64_t i = 0; i < k; ++i) {
        const double product = static_cast<double>(x.data_as<T>()[m * k + i]) *
                               static_cast<double>(weight.data_as<T>()[c * k + i]);
        sum += product;
        magnitude += std::abs(product);
      }
      const double error = std::abs(static_cast<double>(out.data_as<T>()[m * n + c]) - sum);
      ASSERT_TRUE(error <= unit * static_cast<double>(k + 2) * magnitude)
          << isa() << " row " << m << " column " << c << " error " << error;
    }
  }
}

template <class T>
void sweep() {
  for (const std::string& name : available_isas()) {
    force_isa(name);
    for (int64_t rows : {1, 2, 4, 5, 7, 8, 9, 97}) {
      for (int64_t n : {1, 23, 24, 47, 48, 49, 200}) {
        const int64_t k = (rows * 5 + n) % 67 + 1;
        const Tensor x = random_tensor<T>({1, rows, k}, 1), w = random_tensor<T>({n, k}, 2),
                     b = rows % 2 == 0 ? random_tensor<T>({n}, 3) : Tensor();
        Tensor out(dtype_of<T>(), {1, rows, n});
        PackedLinear(w, b.defined() ? b.view() : ConstTensorView()).run(x, out);
        expect_matches_double<T>(x, w, b, out);
      }
    }
  }
  force_isa(available_isas().front());
}

TEST(Linear, MatchesDoubleOnEveryIsa) {
  sweep<float>();
  sweep<double>();
}

template <class T>
bool same_bits(const Tensor& a, const Tensor& b) {
  return std::memcmp(a.data(), b.data(), static_cast<size_t>(a.numel()) * sizeof(T)) == 0;
}

TEST(Linear, BitsDoNotDependOnThreadsIsaRowsOrStrides) {
  const Tensor x = random_tensor<float>({3, 70, 130}, 1), w = random_tensor<float>({150, 130}, 2),
               b = random_tensor<float>({150}, 3);
  const PackedLinear linear(w, b);
  Tensor expected(DType::kFloat32, {3, 70, 150});
  linear.run(x, expected);
  const int threads = num_threads();
  for (const std::string& name : available_isas()) {
    if (name == "baseline") continue;
    force_isa(name);
    for (int n : {1, 2, 3, 7}) {
      set_num_threads(n);
      Tensor out(DType::kFloat32, {3, 70, 150});
      linear.run(x, out);
      EXPECT_TRUE(same_bits<float>(out, expected)) << name << " threads " << n;
    }
    Tensor one(DType::kFloat32, {1, 1, 150}), swapped(DType::kFloat32, {70, 3, 150});
    linear.run(x.view().narrow(0, 1, 1).narrow(1, 5, 1), one);
    EXPECT_EQ(std::memcmp(one.data(), expected.data_as<float>() + 75 * 150, 600), 0) << name;
    linear.run(x.view().transposed(0, 1), swapped);
    EXPECT_TRUE(same_bits<float>(Tensor(swapped.view().transposed(0, 1)), expected)) << name;
  }
  set_num_threads(threads);
  force_isa(available_isas().front());
}

// The columns [first, first + groups * width) by heads, against the same columns of a plain run.
template <class T>
void expect_same_columns(const PackedLinear& linear, const Tensor& x, const Tensor& plain,
                         int64_t first, int64_t width) {
  const int64_t batch = x.size(0), len = x.size(1), groups = 3;
  for (const bool by_head : {true, false}) {
    Tensor memory = by_head ? Tensor(dtype_of<T>(), {batch, groups, len, width})
                            : Tensor(dtype_of<T>(), {batch, len, groups, width});
    const TensorView out = by_head ? memory.view() : memory.view().transposed(1, 2);
    linear.run(x, out, first);
    for (int64_t g = 0; g < groups; ++g) {
      const Tensor part(ConstTensorView(out).select(1, g));  // [batch, len, width]
      const Tensor expected(plain.view().narrow(2, first + g * width, width));
      ASSERT_TRUE(same_bits<T>(part, expected))
          << isa() << " first " << first << " width " << width << " group " << g;
    }
  }
}

template <class T>
void columns_by_heads() {
  const Tensor x = random_tensor<T>({2, 11, 33}, 1), w = random_tensor<T>({240, 33}, 2),
               b = random_tensor<T>({240}, 3);
  const PackedLinear linear(w, b);
  for (const std::string& name : available_isas()) {
    force_isa(name);
    Tensor plain(dtype_of<T>(), {2, 11, 240});
    linear.run(x, plain);
    for (const int64_t width : {1, 5, 16, 24, 40, 48, 64}) {
      for (const int64_t first : {int64_t{0}, int64_t{7}, int64_t{48}, 240 - 3 * width}) {
        expect_same_columns<T>(linear, x, plain, first, width);
      }
    }
  }
  force_isa(available_isas().front());
}

TEST(Linear, AnyColumnsInAnyGroupsHaveTheSameBits) {
  columns_by_heads<float>();
  columns_by_heads<double>();
}

}  // namespace
}  // namespace polyhead
