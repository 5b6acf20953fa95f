// Running a body on every instruction set, plan and number of threads, and putting all back after.
#pragma once

#include <cfenv>
#include <functional>
#include <string>
#include <vector>

#include "attention/attention_call.h"
#include "base/float_env.h"

namespace polyhead::oracle {

// Runs body(isa) with each ISA this CPU has forced, the best first.
void for_each_isa(const std::function<void(const std::string& isa)>& body);

// Those that promise each other's bits: all but "baseline".
std::vector<std::string> isas_with_fma();

// Names of the plans that support the call. "reference" comes last and is left out where there is
// another, unless asked for: it is the truth, not a kernel.
std::vector<std::string> plans_for(const AttentionCall& call, bool with_reference = false);

class ForcedIsa {
 public:
  explicit ForcedIsa(const std::string& name);
  ~ForcedIsa();
  ForcedIsa(const ForcedIsa&) = delete;
  ForcedIsa& operator=(const ForcedIsa&) = delete;

 private:
  std::string saved_;
};

class Threads {
 public:
  explicit Threads(int n);
  ~Threads();
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

 private:
  int saved_;
};

// Bits of the word in base/float_env.h.
#if defined(__x86_64__)
inline constexpr FloatControl kFlushToZero = 0x8040;  // results and operands
inline constexpr FloatControl kTowardZero = 0x6000;
#elif defined(__aarch64__)
inline constexpr FloatControl kFlushToZero = 1 << 24;
inline constexpr FloatControl kTowardZero = 3 << 22;
#else
inline constexpr FloatControl kFlushToZero = 0;  // C++ has no word for it
inline constexpr FloatControl kTowardZero = FE_TOWARDZERO;
#endif

}  // namespace polyhead::oracle
