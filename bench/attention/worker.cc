// Our side of the duel that bench/run.py referees: does one thing per line of stdin, answers with
// one line of JSON. Sleeps in between, so that the other engine has the processor to itself.
//
//   hello                                  what runs here
//   attention B H L D LAYOUT CAUSAL DIR    takes DIR/query.f32, key.f32, value.f32 as its inputs:
//                                          raw float32 in memory order; LAYOUT is BHLD or BLHD
//   call FILE                              one call, its output to FILE: {"seconds", "cpu_seconds"}
//   slice N                                N calls after one that does not count, if N > 1: same
//   probe                                  {"gflops": ...}, the FMA rate of its threads
//
// Threads come from POLYHEAD_NUM_THREADS, the instruction set from POLYHEAD_ISA.
#include <chrono>
#include <ctime>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>

#include <polyhead/runtime.h>
#include "bench/attention/problem.h"
#include "bench/fma_probe.h"
#include "simd/isa.h"

namespace polyhead::bench {
namespace {

void read_file(const std::string& path, Tensor* tensor) {
  std::ifstream file(path, std::ios::binary);
  const auto bytes = static_cast<std::streamsize>(tensor->numel() * int64_t{sizeof(float)});
  if (!file.read(static_cast<char*>(tensor->data()), bytes) || file.peek() != EOF) {
    throw std::runtime_error(path + ": must hold exactly " + std::to_string(bytes) + " bytes");
  }
}

void write_file(const std::string& path, const Tensor& tensor) {
  std::ofstream file(path, std::ios::binary);
  file.write(static_cast<const char*>(tensor.data()),
             static_cast<std::streamsize>(tensor.numel() * int64_t{sizeof(float)}));
  if (!file.flush()) throw std::runtime_error(path + ": cannot be written");
}

std::unique_ptr<Problem> read_problem(std::istream& words) {
  Cell cell;
  std::string layout, folder;
  bool causal = false;
  words >> cell.batch >> cell.heads >> cell.len >> cell.head_dim >> layout >> causal >> folder;
  if (!words || (layout != "BHLD" && layout != "BLHD")) {
    throw std::runtime_error("attention: want B H L D BHLD|BLHD 0|1 DIR");
  }
  cell.mask = causal ? MaskKind::kCausal : MaskKind::kNone;
  cell.heads_inner = layout == "BLHD";
  auto problem = std::make_unique<Problem>(cell);
  read_file(folder + "/query.f32", &problem->query);
  read_file(folder + "/key.f32", &problem->key);
  read_file(folder + "/value.f32", &problem->value);
  return problem;
}

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

std::string answer(const std::string& line, std::unique_ptr<Problem>* problem) {
  std::istringstream words(line);
  std::string command;
  words >> command;
  if (command == "hello") return hello();
  if (command == "probe") {
    const double gflops = fma_peak_of_threads(active_isa(), num_threads());
    return "{\"gflops\": " + std::to_string(gflops) + "}";
  }
  if (command == "attention") {
    problem->reset();
    *problem = read_problem(words);
    return "{}";
  }
  if (*problem == nullptr) throw std::runtime_error(command + ": no problem given yet");
  if (command == "call") {
    std::string file;
    words >> file;
    const std::string reply = timed_calls(**problem, 1);
    write_file(file, (*problem)->out);
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
