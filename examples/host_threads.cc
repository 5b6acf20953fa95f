// The host has threads of its own: they are lent, and the library starts none.
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include <polyhead/polyhead.h>

using namespace polyhead;

// Stands for the scheduler of a host. What it must do: call task(argument, i) once for every
// i < count, in any order, on any threads, and return when all are done.
class Host {
 public:
  void parallel_for(size_t count, ParallelTask task, void* argument) {
    std::atomic<size_t> next{0};
    const auto work = [&] {
      for (size_t i; (i = next++) < count; ++tasks_run_) task(argument, i);
    };
    const std::jthread helpers[] = {std::jthread(work), std::jthread(work)};
    work();
  }  // here the helpers are joined
  size_t tasks_run() const { return tasks_run_; }

 private:
  std::atomic<size_t> tasks_run_{0};
};

Tensor forward(const std::vector<float>& numbers) {
  const MultiheadAttention attention(
      {.embed_dim = 64, .num_heads = 8, .layout = Layout::kBatchFirst}, /*seed=*/1);
  const ConstTensorView x(numbers.data(), {2, 50, 64});  // [batch, len, embed_dim]
  return attention.forward(x, x, x).out;
}

int main() {
  std::vector<float> numbers(2 * 50 * 64);
  for (size_t i = 0; i < numbers.size(); ++i) numbers[i] = std::sin(static_cast<float>(i));
  set_num_threads(1);
  const Tensor alone = forward(numbers);

  Host host;
  set_num_threads(3);  // into how many hands work is worth dividing
  lend_executor(
      [](void* context, size_t count, ParallelTask task, void* argument) {
        static_cast<Host*>(context)->parallel_for(count, task, argument);
      },
      &host);
  const Tensor lent = forward(numbers);
  lend_executor(nullptr, nullptr);  // before the host goes away

  const size_t bytes = static_cast<size_t>(alone.numel()) * sizeof(float);
  const bool same_bits = std::memcmp(alone.data(), lent.data(), bytes) == 0;
  std::printf("the host ran %zu tasks; results are %s\n", host.tasks_run(),
              same_bits ? "the same to the bit" : "DIFFERENT");
  return host.tasks_run() > 0 && same_bits ? 0 : 1;
}
