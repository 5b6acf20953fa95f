// What the library runs on: instruction set, threads, plans.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#pragma GCC visibility push(default)
namespace polyhead {

const char* version();  // "0.3.0"

// "avx512", "avx2", "neon" or "baseline". The best this CPU has, unless POLYHEAD_ISA names one.
// Throws InvalidArgument if that is unknown or not supported here: there is no silent fallback.
std::string isa();
std::vector<std::string> available_isas();  // best first
// Switches the whole process; not while another thread is inside the library.
void force_isa(const std::string& name);

// Threads a call may use, the caller included. Default: POLYHEAD_NUM_THREADS, else the CPU's.
// Results do not depend on it. Throws InvalidArgument unless 1 <= n <= 1024.
void set_num_threads(int n);
int num_threads();

// Lends the host's threads in place of our own pool: parallel_for must call task(argument, i) once
// for each i in [0, count), in any order, on any threads, and return when all are done. Tasks do
// not throw. Null takes the loan back. Not while another thread is inside the library.
using ParallelTask = void (*)(void* argument, size_t i);
using ParallelFor = void (*)(void* context, size_t count, ParallelTask task, void* argument);
void lend_executor(ParallelFor parallel_for, void* context);

// Calls task(argument, i) for each i in [0, count), in any order, on up to num_threads() threads
// with the default floating-point environment (round to nearest, no flush to zero); returns when
// all are done. Tasks do not throw. Runs inline, in order, when count is 1, one thread is set, or
// the pool is busy with another caller.
void parallel_for(size_t count, ParallelTask task, void* argument);

// The ordered table of plans for attention; a call takes the first that supports it.
struct PlanInfo {
  const char* name;
  const char* when;  // one line: which calls it supports, and how it runs them
};
std::vector<PlanInfo> attention_plans();
std::vector<PlanInfo> attention_backward_plans();  // the same for attention_backward

}  // namespace polyhead
#pragma GCC visibility pop
