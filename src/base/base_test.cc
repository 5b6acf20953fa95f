// The thread pool, the floating-point environment, the logarithm, tensors.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <random>
#include <thread>
#include <vector>

#include <polyhead/error.h>
#include <polyhead/runtime.h>
#include <polyhead/tensor_view.h>
#include "base/float_env.h"
#include "base/natural_log.h"
#include "base/parallel_tasks.h"
#include "base/thread_pool.h"
#include "testing/machine.h"

namespace polyhead {
namespace {

class ThreadPool : public testing::Test {
 protected:
  void TearDown() override {
    lend_executor(nullptr, nullptr);
    set_num_threads(before_);
  }
  const int before_ = num_threads();
};

void expect_each_once(size_t count) {
  std::vector<std::atomic<int>> calls(count);
  parallel_for(count, [&](size_t i) { calls[i].fetch_add(1); });
  for (size_t i = 0; i < count; ++i) ASSERT_EQ(calls[i].load(), 1) << i << " of " << count;
}

TEST_F(ThreadPool, RunsEachTaskOnce) {
  for (int threads : {1, 2, 3, 7}) {
    set_num_threads(threads);
    for (size_t count : {0U, 1U, 2U, 3U, 100U, 1000U}) expect_each_once(count);
  }
}

TEST_F(ThreadPool, ServesManyCallersAtOnce) {
  set_num_threads(3);
  std::vector<std::jthread> callers;
  for (int i = 0; i < 8; ++i) {
    callers.emplace_back([] {
      for (int n = 0; n < 50; ++n) expect_each_once(20);
    });
  }
}

TEST_F(ThreadPool, NestedCallsRunInline) {
  set_num_threads(2);
  std::atomic<int> calls{0};
  parallel_for(4, [&](size_t) { parallel_for(4, [&](size_t) { calls.fetch_add(1); }); });
  EXPECT_EQ(calls.load(), 16);
}

TEST_F(ThreadPool, WorksInAForkedChild) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "ThreadSanitizer ends a forked child that starts threads";
#endif
  set_num_threads(2);
  expect_each_once(10);
  const pid_t child = fork();
  if (child == 0) {
    std::atomic<size_t> calls{0};
    parallel_for(10, [&](size_t) { calls.fetch_add(1); });
    _exit(calls.load() == 10 ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST_F(ThreadPool, UsesTheLentExecutor) {
  set_num_threads(2);
  size_t lent_tasks = 0;
  lend_executor(
      [](void* context, size_t count, ParallelTask task, void* argument) {
        *static_cast<size_t*>(context) += count;
        for (size_t i = count; i-- > 0;) task(argument, i);
      },
      &lent_tasks);
  expect_each_once(10);
  EXPECT_EQ(lent_tasks, 10U);
}

TEST_F(ThreadPool, RefusesAThreadCountOutOfRange) {
  EXPECT_THROW(set_num_threads(0), InvalidArgument);
  EXPECT_THROW(set_num_threads(1025), InvalidArgument);
}

TEST_F(ThreadPool, TasksSeeTheDefaultFloatEnvironment) {
  constexpr FloatControl kOdd = oracle::kFlushToZero | oracle::kTowardZero;
  const FloatControl before = float_control();
  for (int threads : {1, 2}) {
    set_num_threads(threads);
    std::atomic<int> defaults{0};
    set_float_control(before | kOdd);
    parallel_for(8, [&](size_t) { defaults.fetch_add((float_control() & kOdd) == 0); });
    const FloatControl after = float_control();
    set_float_control(before);
    EXPECT_EQ(defaults.load(), 8);
    EXPECT_EQ(after & kOdd, kOdd) << "the caller's own is restored";
  }
}

TEST_F(ThreadPool, TasksGetTheirOwnAlignedWorkspace) {
  set_num_threads(3);
  std::atomic<int> bad{0};
  parallel_tasks(64, 1e9, 1000, [&](size_t task, std::byte* memory) {
    const auto mark = static_cast<std::byte>(task);
    std::fill_n(memory, 1000, mark);
    std::this_thread::yield();
    bad.fetch_add(reinterpret_cast<uintptr_t>(memory) % kAlignment != 0);
    for (int i = 0; i < 1000; ++i) bad.fetch_add(memory[i] != mark);
  });
  EXPECT_EQ(bad.load(), 0);
}

TEST(NaturalLog, WithinTwoUnitsInTheLastPlace) {
  std::mt19937_64 generator(3);
  std::uniform_real_distribution<double> exponent(-30, 40), near_one(0.9, 1.1);
  double worst = 0;
  for (int i = 0; i < 200'000; ++i) {
    const double x = i % 2 == 0 ? std::exp2(exponent(generator)) : near_one(generator);
    const long double truth = std::log(static_cast<long double>(x));
    const double ulp = std::nextafter(std::abs(static_cast<double>(truth)), INFINITY) -
                       std::abs(static_cast<double>(truth));
    worst = std::max(worst, static_cast<double>(std::abs(natural_log(x) - truth)) / ulp);
  }
  EXPECT_LE(worst, 2);
  EXPECT_EQ(natural_log(1), 0);
  EXPECT_EQ(natural_log(INFINITY), INFINITY);
  EXPECT_TRUE(std::isnan(natural_log(NAN)));
}

TEST(TensorView, RefusesImpossibleShapes) {
  float x = 0;
  const int64_t huge = int64_t{1} << 62;
  EXPECT_THROW(ConstTensorView(&x, {-1}), InvalidArgument);
  EXPECT_THROW(ConstTensorView(&x, {huge, 4}), InvalidArgument);
  EXPECT_THROW(ConstTensorView(&x, {0, huge, huge}), InvalidArgument);
  EXPECT_THROW(ConstTensorView(static_cast<float*>(nullptr), {2}), InvalidArgument);
  EXPECT_THROW(ConstTensorView(&x, {1, 1, 1, 1, 1, 1, 1, 1, 1}), InvalidArgument);
  EXPECT_NO_THROW(ConstTensorView(static_cast<float*>(nullptr), {0, 3}));
  EXPECT_THROW(Tensor(DType::kFloat32, {huge}), InvalidArgument);
}

TEST(TensorView, NothingStaysNothing) {
  EXPECT_THROW(ConstTensorView().unsqueezed(0), InvalidArgument);
  EXPECT_FALSE(Tensor(ConstTensorView()).defined());
  EXPECT_FALSE(Tensor(Tensor()).defined());
  EXPECT_EQ(Tensor().numel(), 0);
  EXPECT_EQ(Tensor(DType::kFloat32, {}).numel(), 1);  // a scalar is one number
}

TEST(TensorView, ViewsShareMemoryAndTensorsCopy) {
  Tensor tensor(DType::kFloat32, {2, 3, 4});
  for (int i = 0; i < 24; ++i) tensor.data_as<float>()[i] = static_cast<float>(i);
  const TensorView swapped = tensor.view().transposed(0, 2);
  EXPECT_EQ(swapped.shape_string(), "[4, 3, 2]");
  EXPECT_FALSE(swapped.is_contiguous());
  const Tensor copy{ConstTensorView(swapped)};
  EXPECT_EQ(copy.data_as<float>()[1], 12);  // [0, 0, 1] of the copy is [1, 0, 0] of the original
  const TensorView part = tensor.view().narrow(1, 1, 2).select(0, 1);
  EXPECT_EQ(part.shape_string(), "[2, 4]");
  EXPECT_EQ(part.data_as<float>()[0], 16);
  EXPECT_THROW(part.data_as<double>(), InvalidArgument);
  EXPECT_THROW(part.narrow(0, 1, 2), InvalidArgument);
  EXPECT_EQ(part.unsqueezed(1).shape_string(), "[2, 1, 4]");
  const ConstTensorView full(tensor.data_as<float>(), {1, 1, 1, 1, 1, 2, 3, 4});
  EXPECT_THROW(full.unsqueezed(0), InvalidArgument);
}

}  // namespace
}  // namespace polyhead
