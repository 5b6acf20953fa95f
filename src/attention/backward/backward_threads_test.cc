// The number of threads may be changed while gradients are computed.
#include <atomic>
#include <thread>

#include <gtest/gtest.h>
#include <polyhead/runtime.h>
#include "testing/backward_check.h"
#include "testing/compare.h"
#include "testing/machine.h"

namespace polyhead::oracle {
namespace {

// One thread takes a head's keys by 512, many take them by 64. So little work that a call is over
// in microseconds, on the caller's thread: the change meets every part of it in turn.
TEST(BackwardThreads, TheirNumberMayChangeMeanwhile) {
  const BackwardProblem problem(
      {.heads = 1, .kv_heads = 1, .q_len = 2, .kv_len = 500, .head_dim = 4, .v_head_dim = 4});
  const Threads one(1);
  const BackwardRun expected = run_backward_case(problem, "backward_two_phases");
  std::atomic<bool> done{false};
  std::thread changer([&] {
    for (int n = 1; !done; n = 65 - n) set_num_threads(n);
  });
  for (int repeat = 0; repeat < 1000; ++repeat) {
    const BackwardRun run = run_backward_case(problem, "backward_two_phases");
    if (!compare_bits(run.d_key.view(), expected.d_key.view()).ok) {
      ADD_FAILURE() << "repeat " << repeat;
      break;
    }
  }
  done = true;
  changer.join();
}

}  // namespace
}  // namespace polyhead::oracle
