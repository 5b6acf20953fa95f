#include "simd/isa.h"

#include <atomic>
#include <cstdlib>
#include <string>
#include <vector>

#include <polyhead/error.h>
#include <polyhead/runtime.h>
#include "base/escape.h"
#include "base/message.h"

namespace polyhead {
namespace {

constexpr Isa kBestFirst[] = {Isa::kAvx512, Isa::kAvx2, Isa::kNeon, Isa::kBaseline};
std::atomic<int> g_active{-1};  // -1: not looked up yet

Isa named(const std::string& name, const char* who) {
  std::string choices;
  for (Isa isa : kBestFirst) {
    if (!cpu_has(isa)) continue;
    if (name == isa_name(isa)) return isa;
    choices += (choices.empty() ? "" : ", ") + std::string(isa_name(isa));
  }
  throw InvalidArgument(message(who, ": got ", in_quotes(name, 100), "; this CPU has ", choices));
}

Isa initial_isa() {
  const char* name = std::getenv("POLYHEAD_ISA");
  if (name != nullptr && *name != '\0') return named(name, "POLYHEAD_ISA");
  for (Isa isa : kBestFirst) {
    if (cpu_has(isa)) return isa;
  }
  return Isa::kBaseline;
}

}  // namespace

const char* isa_name(Isa isa) {
  static constexpr const char* kNames[kNumIsas] = {"baseline", "avx2", "avx512", "neon"};
  return kNames[static_cast<int>(isa)];
}

bool cpu_has(Isa isa) {
#if defined(__x86_64__)
  // GCC's and Clang's builtins also ask xgetbv whether the system saves the registers.
  if (isa == Isa::kAvx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (isa == Isa::kAvx512) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("fma");
  }
#elif defined(__aarch64__)
  if (isa == Isa::kNeon) return true;
#endif
  return isa == Isa::kBaseline;
}

Isa active_isa() {
  int active = g_active.load(std::memory_order_relaxed);
  if (active < 0) {
    active = static_cast<int>(initial_isa());
    g_active.store(active, std::memory_order_relaxed);
  }
  return static_cast<Isa>(active);
}

std::string isa() { return isa_name(active_isa()); }

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (Isa isa : kBestFirst) {
    if (cpu_has(isa)) names.emplace_back(isa_name(isa));
  }
  return names;
}

void force_isa(const std::string& name) {
  g_active.store(static_cast<int>(named(name, "force_isa")), std::memory_order_relaxed);
}

}  // namespace polyhead
