// attention_forward by itself, on every instruction set, against the FMA peak measured around it.
//
//   op_bench --benchmark_filter='1x12x512x64/causal' --benchmark_repetitions=9
//
// Names: B x H x L x D / mask / dtype / weights [/ dropout] / ISA / threads. GFLOP/s counts useful
// flops: under a causal mask those of the visible pairs. `of_peak` is their share of what the same
// threads reach in plain float32 FMAs (half of that in float64), probed before and after each
// repetition. The first repetition of a case is preceded by its proof against the double reference:
// a wrong answer is an error, and gets no time.
#include <benchmark/benchmark.h>

#include <chrono>
#include <memory>
#include <string>

#include <polyhead/runtime.h>
#include "bench/attention/problem.h"
#include "bench/fma_probe.h"
#include "simd/isa.h"

namespace polyhead::bench {
namespace {

struct Case {
  Cell cell;
  std::string isa;
  int threads = 1;
};

std::string name_of(const Case& c) {
  static constexpr const char* kMasks[] = {"full", "causal", "boolean", "additive"};
  static constexpr const char* kWeights[] = {"no_weights", "average", "per_head"};
  const auto number = [](int64_t n) { return std::to_string(n); };
  return number(c.cell.batch) + "x" + number(c.cell.heads) + "x" + number(c.cell.len) + "x" +
         number(c.cell.head_dim) + "/" + kMasks[static_cast<int>(c.cell.mask)] + "/" +
         dtype_name(c.cell.dtype) + "/" + kWeights[static_cast<int>(c.cell.weights)] + "/" +
         (c.cell.dropout_p > 0 ? "dropout/" : "") + c.isa + "/threads:" + number(c.threads);
}

// Inputs are made once per case, and outputs proved once, however many repetitions follow.
std::shared_ptr<Problem> proved_problem(const Case& c, std::string* error) {
  static std::string last_name, last_error;
  static std::shared_ptr<Problem> last;
  if (last_name != name_of(c)) {
    last.reset();
    last = std::make_shared<Problem>(c.cell);
    last->run();
    last_error = last->find_error();
    last_name = name_of(c);
  }
  *error = last_error;
  return last;
}

void time_case(benchmark::State& state, const Case& c) {
  force_isa(c.isa);
  set_num_threads(c.threads);
  std::string error;
  const std::shared_ptr<Problem> problem = proved_problem(c, &error);
  if (!error.empty()) {
    state.SkipWithError(error.c_str());
    return;
  }
  using Clock = std::chrono::steady_clock;
  const double before = fma_peak_of_threads(active_isa(), c.threads);
  const Clock::time_point start = Clock::now();
  for (auto _ : state) problem->run();
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const double after = fma_peak_of_threads(active_isa(), c.threads);
  const double peak = (before + after) / 2 * (c.cell.dtype == DType::kFloat32 ? 1 : 0.5);
  const double flops = useful_flops(c.cell) * static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] = flops / seconds * 1e-9;
  state.counters["of_peak"] = flops / seconds * 1e-9 / peak;
  state.counters["peak"] = peak;
}

void add(const Case& c) {
  benchmark::RegisterBenchmark(name_of(c).c_str(), time_case, c)
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
}

constexpr Cell kShapes[] = {
    {32, 8, 10, 32}, {8, 8, 128, 64}, {1, 12, 512, 64}, {1, 16, 2048, 64}, {1, 2, 2048, 128}};

void add_shapes() {
  for (const std::string& isa : available_isas()) {
    for (int threads : {1, 2}) {
      for (Cell cell : kShapes) {
        add({cell, isa, threads});
        cell.mask = MaskKind::kCausal;
        add({cell, isa, threads});
      }
    }
  }
}

// What the options cost, beside the plain case of the same shape.
void add_options() {
  const std::string best = available_isas().front();
  for (const Cell& shape : {kShapes[1], kShapes[2]}) {
    for (MaskKind mask : {MaskKind::kBoolean, MaskKind::kAdditive}) {
      Cell cell = shape;
      cell.mask = mask;
      add({cell, best, 1});
    }
    for (WeightsMode weights : {WeightsMode::kAverage, WeightsMode::kPerHead}) {
      Cell cell = shape;
      cell.weights = weights;
      add({cell, best, 1});
    }
    for (const std::string& isa : available_isas()) {
      Cell cell = shape;
      cell.dtype = DType::kFloat64;
      add({cell, isa, 1});
      cell = shape;
      cell.dropout_p = 0.1;
      add({cell, isa, 1});
    }
  }
}

}  // namespace
}  // namespace polyhead::bench

int main(int argc, char** argv) {
  polyhead::bench::add_shapes();
  polyhead::bench::add_options();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
