// The default floating-point environment for the length of a scope: results must not depend on what
// the caller has set (flush-to-zero, rounding).
#pragma once

#include <cfenv>
#include <cstdint>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace polyhead {

// The word of this thread that says how its arithmetic rounds and whether it flushes subnormal
// numbers to zero.
#if defined(__x86_64__)
using FloatControl = unsigned;
inline constexpr FloatControl kDefaultFloatControl = 0x1f80;  // exceptions masked, nothing else
inline FloatControl float_control() { return _mm_getcsr(); }
inline void set_float_control(FloatControl control) { _mm_setcsr(control); }
#elif defined(__aarch64__)
using FloatControl = uint64_t;
inline constexpr FloatControl kDefaultFloatControl = 0;
inline FloatControl float_control() {
  FloatControl control;
  asm volatile("mrs %0, fpcr" : "=r"(control));
  return control;
}
inline void set_float_control(FloatControl control) {
  asm volatile("msr fpcr, %0" : : "r"(control) : "memory");
}
#else  // the direction of rounding, which is all that C++ knows of
using FloatControl = int;
inline constexpr FloatControl kDefaultFloatControl = FE_TONEAREST;
inline FloatControl float_control() { return std::fegetround(); }
inline void set_float_control(FloatControl control) { std::fesetround(control); }
#endif

class DefaultFloatEnv {
 public:
  DefaultFloatEnv() : saved_(float_control()) {
    if (saved_ != kDefaultFloatControl) set_float_control(kDefaultFloatControl);
  }
  ~DefaultFloatEnv() {
    if (saved_ != kDefaultFloatControl) set_float_control(saved_);
  }
  DefaultFloatEnv(const DefaultFloatEnv&) = delete;
  DefaultFloatEnv& operator=(const DefaultFloatEnv&) = delete;

 private:
  FloatControl saved_;
};

}  // namespace polyhead
