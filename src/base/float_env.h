// The default floating-point environment for the length of a scope: results must not depend on what
// the caller has set (flush-to-zero, rounding).
#pragma once

#include <cfenv>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace polyhead {

class DefaultFloatEnv {
 public:
#if defined(__x86_64__)
  DefaultFloatEnv() : saved_(_mm_getcsr()) {
    if (saved_ != kDefault) _mm_setcsr(kDefault);
  }
  ~DefaultFloatEnv() {
    if (saved_ != kDefault) _mm_setcsr(saved_);
  }

 private:
  static constexpr unsigned kDefault = 0x1f80;  // all exceptions masked, nearest, no FTZ, no DAZ
  unsigned saved_;
#else
  DefaultFloatEnv() {
    std::fegetenv(&saved_);
    std::fesetenv(FE_DFL_ENV);
  }
  ~DefaultFloatEnv() { std::fesetenv(&saved_); }

 private:
  std::fenv_t saved_;
#endif
 public:
  DefaultFloatEnv(const DefaultFloatEnv&) = delete;
  DefaultFloatEnv& operator=(const DefaultFloatEnv&) = delete;
};

}  // namespace polyhead
