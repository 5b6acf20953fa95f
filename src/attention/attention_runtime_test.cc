// Threads, lent executors and the caller's floating-point environment change no bit.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cfenv>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <polyhead/error.h>
#include <polyhead/runtime.h>
#include "testing/attention_check.h"
#include "testing/compare.h"
#include "testing/machine.h"

namespace polyhead::oracle {
namespace {

// Enough work to be shared out. head_dim 20: its default scale is not a float.
AttentionCase usual(DType dtype = DType::kFloat32) {
  return {.batch = 2,
          .heads = 4,
          .kv_heads = 4,
          .q_len = 101,
          .kv_len = 90,
          .head_dim = 20,
          .v_head_dim = 20,
          .dtype = dtype,
          .masks = {{.dims = "b11s"}}};
}

// Through the public function, so that what it computes from the options is under test too.
GuardedTensor forward(const AttentionProblem& problem) {
  GuardedTensor out(problem.spec.dtype, problem.query.view().shape());
  attention_forward(problem.query.view(), problem.key.view(), problem.value.view(),
                    {.masks = problem.masks}, {.out = out.view()});
  return out;
}

TEST(Threads, NumberIsWhatWasSetAndChecked) {
  const Threads saved(3);
  EXPECT_EQ(num_threads(), 3);
  for (int wrong : {0, -1, 1025}) EXPECT_THROW(set_num_threads(wrong), InvalidArgument) << wrong;
  EXPECT_EQ(num_threads(), 3);
}

TEST(Threads, ManyCallersAtOnce) {
  const AttentionProblem problem(usual());
  const Threads two(2);
  const GuardedTensor expected = forward(problem);
  std::vector<GuardedTensor> results(6);
  std::vector<std::thread> callers;
  for (GuardedTensor& result : results) {
    callers.emplace_back([&] {
      for (int repeat = 0; repeat < 10; ++repeat) result = forward(problem);
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (const GuardedTensor& result : results) {
    expect_same_bits(result.view(), expected.view(), "concurrent call");
  }
}

TEST(Threads, AForkedChildComputes) {
#if defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "ThreadSanitizer ends a forked child that starts a thread";
#endif
  const AttentionProblem problem(usual());
  const Threads two(2);
  const GuardedTensor expected = forward(problem);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) _exit(compare_bits(forward(problem).view(), expected.view()).ok ? 0 : 1);
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "status " << status;
}

struct Host {
  std::atomic<int> calls{0};
  std::atomic<size_t> tasks{0};
};

// Backwards, every other task on a thread of its own.
void host_parallel_for(void* context, size_t count, ParallelTask task, void* argument) {
  auto& host = *static_cast<Host*>(context);
  ++host.calls;
  host.tasks += count;
  std::vector<std::thread> threads;
  for (size_t i = count; i-- > 0;) {
    if (i % 2) {
      threads.emplace_back(task, argument, i);
    } else {
      task(argument, i);
    }
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(LentExecutor, RunsTheTasksAndChangesNoBit) {
  for (DType dtype : {DType::kFloat32, DType::kFloat64}) {
    const AttentionProblem problem(usual(dtype));
    const Threads four(4);
    const GuardedTensor own = forward(problem);
    Host host;
    lend_executor(host_parallel_for, &host);
    const GuardedTensor lent = forward(problem);
    const int calls = host.calls;
    lend_executor(nullptr, nullptr);
    const GuardedTensor back = forward(problem);
    EXPECT_GT(calls, 0);
    EXPECT_GE(host.tasks, 2u);
    EXPECT_EQ(host.calls, calls) << "the loan was taken back";
    expect_same_bits(lent.view(), own.view(), "lent executor");
    expect_same_bits(back.view(), own.view(), "own pool again");
  }
}

class FloatEnvironment : public ::testing::TestWithParam<Regime> {};
INSTANTIATE_TEST_SUITE_P(Regimes, FloatEnvironment,
                         ::testing::Values(Regime::kSigma1, Regime::kDenormal, Regime::kAscending));

TEST_P(FloatEnvironment, TheCallersRoundingModeChangesNoBit) {
  for (DType dtype : {DType::kFloat32, DType::kFloat64}) {
    AttentionCase spec = usual(dtype);
    spec.regime = GetParam();
    const AttentionProblem problem(spec);
    for_each_isa([&](const std::string& isa) {
      const GuardedTensor nearest = forward(problem);
      for (int mode : {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO}) {
        ASSERT_EQ(std::fesetround(mode), 0);
        const GuardedTensor out = forward(problem);
        const int after = std::fegetround();
        std::fesetround(FE_TONEAREST);
        EXPECT_EQ(after, mode) << "the caller's mode must be put back";
        expect_same_bits(out.view(), nearest.view(), isa + ", mode " + std::to_string(mode));
      }
    });
  }
}

TEST_P(FloatEnvironment, TheCallersFlushToZeroChangesNoBit) {
  for (DType dtype : {DType::kFloat32, DType::kFloat64}) {
    AttentionCase spec = usual(dtype);
    spec.regime = GetParam();
    const AttentionProblem problem(spec);
    for_each_isa([&](const std::string& isa) {
      const GuardedTensor kept = forward(problem);
      const FloatControl saved = float_control();
      set_float_control(saved | kFlushToZero);
      const GuardedTensor out = forward(problem);
      const FloatControl after = float_control();
      set_float_control(saved);
      EXPECT_EQ(after & kFlushToZero, kFlushToZero) << "the caller's mode must be put back";
      expect_same_bits(out.view(), kept.view(), isa);
    });
  }
}

TEST(Isa, ForcingTellsWhichOnesThereAre) {
  const std::string before = isa();
  for_each_isa([](const std::string& name) { EXPECT_EQ(isa(), name); });
  EXPECT_EQ(isa(), before);
  EXPECT_EQ(available_isas().back(), "baseline");
  for (const char* wrong : {"", "AVX2", "NEON", "sve", "avx512 "}) {
    EXPECT_THROW(force_isa(wrong), InvalidArgument) << wrong;
  }
  EXPECT_EQ(isa(), before);
}

}  // namespace
}  // namespace polyhead::oracle
