// The threads of torch's OpenMP, lent to the library. After each of torch's parallel regions they
// spin for a while: beside them, threads of our own would share the cores with idle ones.
#include <dlfcn.h>
#include <nanobind/nanobind.h>
#include <polyhead/runtime.h>
#include <pthread.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <mutex>

#include "bind.h"

namespace polyhead::python {
namespace {

// libgomp's, and that of who stands in for it: region(work) on a team of threads, the caller among
// them.
using GompParallel = void (*)(void (*region)(void*), void* work, unsigned threads, unsigned flags);

struct Work {
  size_t count;
  ParallelTask task;
  void* argument;
  std::atomic<size_t> next{0};
};

void take_tasks(void* memory) {
  auto* work = static_cast<Work*>(memory);
  for (size_t i; (i = work->next.fetch_add(1, std::memory_order_relaxed)) < work->count;) {
    work->task(work->argument, i);
  }
}

void run_on_openmp(void* context, size_t count, ParallelTask task, void* argument) {
  Work work{count, task, argument};
  const auto threads = static_cast<unsigned>(num_threads());
  reinterpret_cast<GompParallel>(context)(take_tasks, &work, threads, 0);
}

struct CloseLibrary {
  void operator()(void* library) const { dlclose(library); }
};

// The OpenMP that the library at `path`, which is loaded, works with; false if it has none.
bool lend_openmp_of(const char* path) {
  // Never unloaded: its function may be called at any time.
  constexpr int kFlags = RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE;
  const std::unique_ptr<void, CloseLibrary> library(dlopen(path, kFlags));
  void* const gomp_parallel = library ? dlsym(library.get(), "GOMP_parallel") : nullptr;
  if (gomp_parallel == nullptr) return false;
  lend_executor(run_on_openmp, gomp_parallel);
  static std::once_flag is_lent;
  std::call_once(is_lent, [] {
    // OpenMP's threads are not there in a forked child, and it would wait for them.
    pthread_atfork(nullptr, nullptr, [] { lend_executor(nullptr, nullptr); });
  });
  return true;
}

}  // namespace

void bind_torch_threads(nanobind::module_& module) {
  module.def("lend_openmp_of", lend_openmp_of, nanobind::arg("path"));
}

}  // namespace polyhead::python
