// Our side of the duel that bench/run.py referees: does one thing per line of stdin, answers with
// one line of JSON. Sleeps in between, so that the other engines have the processor to themselves.
//
//   hello                  what runs here
//   attention NAME=VALUE.. takes a cell and its inputs: raw float32 files in a folder (problem.h)
//   module NAME=VALUE..    the same, for a whole module
//   decode NAME=VALUE..    the same, for a step over a KV cache
//   train-attention NAME=VALUE.., train-module NAME=VALUE..  forward and backward
//   call PREFIX            one call, its outputs to PREFIX.NAME.f32: {"seconds", "cpu_seconds"}
//   slice N                N calls after one that does not count, if N > 1: same
//   pack NAME=VALUE..      what packing a module's weights costs, beside copying them
//   probe                  {"gflops": ...}, the FMA rate of its threads
//
// Threads come from POLYHEAD_NUM_THREADS, the instruction set from POLYHEAD_ISA.
#include <chrono>
#include <ctime>
#include <iostream>
#include <sstream>
#include <stdexcept>

#include <polyhead/runtime.h>
#include "bench/fma_probe.h"
#include "bench/worker/problem.h"
#include "simd/isa.h"

namespace polyhead::bench {

Words::Words(std::istream& words) {
  for (std::string word; words >> word;) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos) throw std::runtime_error(word + ": want NAME=VALUE");
    values_[word.substr(0, equals)] = word.substr(equals + 1);
  }
}

const std::string& Words::text(const std::string& name) const {
  const auto found = values_.find(name);
  if (found == values_.end()) throw std::runtime_error(name + "=VALUE: not given");
  return found->second;
}

int64_t Words::number(const std::string& name) const { return std::stoll(text(name)); }

namespace {

std::string timed_calls(Problem& problem, int64_t calls) {
  using Clock = std::chrono::steady_clock;
  const std::clock_t cpu_start = std::clock();
  const Clock::time_point start = Clock::now();
  for (int64_t n = 0; n < calls; ++n) problem.run();
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const double cpu_seconds = static_cast<double>(std::clock() - cpu_start) / CLOCKS_PER_SEC;
  std::ostringstream reply;
  reply << "{\"seconds\": " << seconds << ", \"cpu_seconds\": " << cpu_seconds << "}";
  return reply.str();
}

std::string hello() {
  return std::string("{\"engine\": \"polyhead ") + version() + "\", \"isa\": \"" + isa() +
         "\", \"threads\": " + std::to_string(num_threads()) + "}";
}

// By command.
using Maker = std::unique_ptr<Problem> (*)(const Words&);
const std::map<std::string, Maker> kMakers = {{"attention", make_attention},
                                              {"module", make_module},
                                              {"decode", make_decode},
                                              {"train-attention", make_train_attention},
                                              {"train-module", make_train_module}};

std::string answer(const std::string& line, std::unique_ptr<Problem>* problem) {
  std::istringstream words(line);
  std::string command;
  words >> command;
  if (command == "hello") return hello();
  if (command == "probe") {
    const double gflops = fma_peak_of_threads(active_isa(), num_threads());
    return "{\"gflops\": " + std::to_string(gflops) + "}";
  }
  if (const auto make = kMakers.find(command); make != kMakers.end()) {
    problem->reset();
    *problem = make->second(Words(words));
    return "{}";
  }
  if (command == "pack") return time_packing(Words(words));
  if (*problem == nullptr) throw std::runtime_error(command + ": no problem given yet");
  if (command == "call") {
    std::string prefix;
    words >> prefix;
    const std::string reply = timed_calls(**problem, 1);
    (*problem)->write(prefix);
    return reply;
  }
  if (command == "slice") {
    int64_t calls = 1;
    words >> calls;
    if (calls > 1) (*problem)->run();
    return timed_calls(**problem, calls);
  }
  throw std::runtime_error(command + ": not a command");
}

int serve() {
  std::unique_ptr<Problem> problem;
  for (std::string line; std::getline(std::cin, line);) {
    try {
      std::cout << answer(line, &problem) << std::endl;
    } catch (const std::exception& error) {
      std::cerr << "bench_worker: " << error.what() << "\n";
      return 1;
    }
  }
  return 0;
}

}  // namespace
}  // namespace polyhead::bench

int main() { return polyhead::bench::serve(); }
