#include "base/thread_pool.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include <polyhead/error.h>
#include "base/escape.h"
#include "base/float_env.h"
#include "base/message.h"

namespace polyhead {
namespace {

constexpr int kMaxThreads = 1024;
constexpr size_t kShownBytes = 100;  // of what the environment says
// Rounds of spinning before a thread sleeps in the kernel: 48 us on a Zen 5 (2026-11), longer than
// the gap between two stages of one call, far shorter than what would disturb the host.
constexpr int kSpins = 2000;

void pause_cpu() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// One piece of work, shared by all threads that help with it.
struct Job {
  ParallelTask task = nullptr;
  void* argument = nullptr;
  size_t count = 0;
  std::atomic<size_t> next{0};

  void run() {
    DefaultFloatEnv env;
    for (size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) task(argument, i);
  }
};

class Pool {
 public:
  // Fewer than asked for if the system refuses more threads or their memory: slower, not wrong.
  explicit Pool(int workers) : wanted_(workers) {
    for (int i = 0; i < workers && start_worker(); ++i) {
    }
  }

  ~Pool() {
    stop_ = true;
    announce();
    for (std::thread& thread : threads_) thread.join();
  }

  int wanted() const { return wanted_; }

  void run(size_t count, ParallelTask task, void* argument) {
    job_.task = task;
    job_.argument = argument;
    job_.count = count;
    job_.next.store(0, std::memory_order_relaxed);
    gate_.store(kOpen, std::memory_order_release);
    announce();
    job_.run();
    close();
  }

 private:
  bool start_worker() {
    try {
      threads_.emplace_back([this] { work(); });
      return true;
    } catch (const std::exception&) {  // system_error or bad_alloc
      return false;
    }
  }

  // Lets nobody in any more, and waits for those who are: not for a worker that has yet to wake,
  // perhaps on this very CPU, when all tasks are done.
  void close() {
    int inside = gate_.fetch_and(~kOpen, std::memory_order_acq_rel) & ~kOpen;
    for (int spin = 0; inside != 0; inside = gate_.load(std::memory_order_acquire)) {
      if (++spin < kSpins) {
        pause_cpu();
      } else {
        gate_.wait(inside, std::memory_order_acquire);
      }
    }
  }

  bool enter() {
    int gate = gate_.load(std::memory_order_relaxed);
    while ((gate & kOpen) != 0) {
      if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acquire)) return true;
    }
    return false;
  }

  void leave() {  // the last one out of a closed gate wakes the caller
    if (gate_.fetch_sub(1, std::memory_order_acq_rel) == 1) gate_.notify_one();
  }

  void announce() {
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
  }

  void work() {
    for (unsigned seen = 0;;) {
      seen = wait_for_change(seen);
      if (stop_) return;
      if (!enter()) continue;
      job_.run();
      leave();
    }
  }

  unsigned wait_for_change(unsigned seen) {
    for (int spin = 0; spin < kSpins; ++spin) {
      const unsigned now = generation_.load(std::memory_order_acquire);
      if (now != seen) return now;
      pause_cpu();
    }
    generation_.wait(seen, std::memory_order_acquire);
    return generation_.load(std::memory_order_acquire);
  }

  int wanted_;
  std::vector<std::thread> threads_;
  Job job_;
  std::atomic<unsigned> generation_{0};
  static constexpr int kOpen = 1 << 30;
  std::atomic<int> gate_{
      0};  // the number of workers inside the job, and kOpen while they may enter
  std::atomic<bool> stop_{false};
};

// Null if there is no memory for it now.
std::unique_ptr<Pool> make_pool(int workers) {
  try {
    return std::make_unique<Pool>(workers);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

int initial_threads() {
  const char* text = std::getenv("POLYHEAD_NUM_THREADS");
  if (text == nullptr || *text == '\0') {
    const unsigned cpus = std::thread::hardware_concurrency();
    return cpus == 0 ? 1 : static_cast<int>(std::min(cpus, unsigned{kMaxThreads}));
  }
  int n = 0;
  const char* last = text + std::strlen(text);
  const auto [end, error] = std::from_chars(text, last, n);  // unlike strtol takes no blanks
  if (error != std::errc() || end != last || n < 1 || n > kMaxThreads) {
    throw InvalidArgument(message("POLYHEAD_NUM_THREADS: got ", in_quotes(text, kShownBytes),
                                  "; must be 1 to ", kMaxThreads));
  }
  return n;
}

struct Runtime {
  std::atomic<int> num_threads{0};  // 0: not looked up yet
  std::atomic<bool> taken{false};   // by the one caller the pool works for
  std::unique_ptr<Pool> pool;
  std::atomic<ParallelFor> lent{nullptr};
  std::atomic<void*> lent_context{nullptr};
};

struct Release {
  std::atomic<bool>& taken;
  ~Release() { taken.store(false, std::memory_order_release); }
};

// A pointer that a forked child replaces: its parent's threads are not there, and the pool may have
// been taken by one of them, so the old state is abandoned, not destroyed.
Runtime* g_runtime = nullptr;

Runtime& runtime() {
  static std::once_flag once;
  std::call_once(once, [] {
    g_runtime = new Runtime;
    pthread_atfork(nullptr, nullptr, [] {
      auto* fresh = new Runtime;
      fresh->num_threads = g_runtime->num_threads.load();
      fresh->lent = g_runtime->lent.load();
      fresh->lent_context = g_runtime->lent_context.load();
      g_runtime = fresh;
    });
    std::atexit([] {
      if (!g_runtime->taken.exchange(true)) g_runtime->pool.reset();
    });
  });
  return *g_runtime;
}

}  // namespace

int num_threads() {
  Runtime& state = runtime();
  int n = state.num_threads.load(std::memory_order_relaxed);
  if (n == 0) {
    n = initial_threads();
    state.num_threads.store(n, std::memory_order_relaxed);
  }
  return n;
}

void set_num_threads(int n) {
  if (n < 1 || n > kMaxThreads) {
    throw InvalidArgument(message("set_num_threads: n: got ", n, "; must be 1 to ", kMaxThreads));
  }
  runtime().num_threads.store(n, std::memory_order_relaxed);
}

void lend_executor(ParallelFor parallel_for, void* context) {
  Runtime& state = runtime();
  state.lent_context.store(context, std::memory_order_relaxed);
  state.lent.store(parallel_for, std::memory_order_release);
}

void parallel_for(size_t count, ParallelTask task, void* argument) {
  Job job;
  job.task = task;
  job.argument = argument;
  job.count = count;
  const int threads = num_threads();
  if (count <= 1 || threads == 1) return job.run();
  Runtime& state = runtime();
  if (ParallelFor lent = state.lent.load(std::memory_order_acquire)) {
    const auto guarded = [](void* shared, size_t i) {
      DefaultFloatEnv env;
      const Job& of = *static_cast<Job*>(shared);
      of.task(of.argument, i);
    };
    return lent(state.lent_context.load(std::memory_order_relaxed), count, guarded, &job);
  }
  if (state.taken.exchange(true, std::memory_order_acquire)) return job.run();
  const Release release{state.taken};
  if (!state.pool || state.pool->wanted() != threads - 1) {
    state.pool.reset();
    state.pool = make_pool(threads - 1);
  }
  if (!state.pool) return job.run();
  state.pool->run(count, task, argument);
}

}  // namespace polyhead
