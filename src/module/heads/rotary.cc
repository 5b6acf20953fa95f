#include "module/heads/rotary.h"

#include <cmath>
#include <string>

#include "base/float_env.h"
#include "base/message.h"
#include "base/sine_cosine.h"
#include "module/require.h"

namespace polyhead {
namespace {

constexpr double kMaxBase = 1e30, kMaxFactor = 1e6;

// high + low: twice double's precision, |low| <= half a unit in high's last place.
struct Wide {
  double high = 0, low = 0;
};

Wide normalised(double high, double low) {  // |high| >= |low|
  const double sum = high + low;
  return {sum, low - (sum - high)};
}

Wide operator*(const Wide& a, const Wide& b) {
  const double product = a.high * b.high;
  const double rest = std::fma(a.high, b.high, -product);
  return normalised(product, rest + (a.high * b.low + a.low * b.high));
}

Wide operator/(const Wide& a, const Wide& b) {
  const double first = a.high / b.high;
  const double rest = std::fma(-first, b.high, a.high) + (a.low - first * b.low);
  return normalised(first, rest / b.high);
}

Wide power(Wide x, int64_t n) {
  Wide result{1, 0};
  for (; n > 0; n /= 2, x = x * x) {
    if (n % 2 != 0) result = result * x;
  }
  return result;
}

double power(double x, int64_t n) {
  double result = 1;
  for (; n > 0; n /= 2, x *= x) {
    if (n % 2 != 0) result *= x;
  }
  return result;
}

// a^(1/n) for a >= 1, n >= 1: bisection to double's precision, then a step of Newton's method.
Wide root(const Wide& a, int64_t n) {
  double low = 1, high = a.high;
  for (double middle = low + (high - low) / 2; low < middle && middle < high;
       middle = low + (high - low) / 2) {
    (power(middle, n) <= a.high ? low : high) = middle;
  }
  const Wide p = power(Wide{low, 0}, n);
  const double rest = (a.high - p.high) + (a.low - p.low);
  return normalised(low, low * rest / (static_cast<double>(n) * p.high));
}

// base^(2 / rotary_dim): from each pair to the next, the frequency is divided by it.
Wide ratio_of(const Rope& rope) {
  const int64_t pairs = rope.rotary_dim / 2;
  Wide base{rope.base, 0};
  if (rope.scaling == RopeScaling::kNtk && pairs > 1) {
    base = base * Wide{rope.factor, 0} * root({rope.factor, 0}, pairs - 1);
  }
  return root(base, pairs);
}

Wide scaled(const Wide& turns, const Rope& rope) {
  if (rope.scaling == RopeScaling::kLinear) return turns / Wide{rope.factor, 0};
  if (rope.scaling != RopeScaling::kLlama3) return turns;
  const double in_all = static_cast<double>(rope.original_length) * turns.high;
  const double low = rope.low_freq_factor, high = rope.high_freq_factor;
  if (in_all >= high) return turns;
  if (in_all <= low) return turns / Wide{rope.factor, 0};
  const double kept = (in_all - low) / (high - low);
  return turns * Wide{(1 - kept) / rope.factor + kept, 0};
}

uint64_t in_units(const Wide& turns) {
  const double units = turns.high * 0x1p64;  // below 2^62, for a turn is 2 pi
  const auto whole = static_cast<int64_t>(units);
  const double rest = units - static_cast<double>(whole) + turns.low * 0x1p64;
  return static_cast<uint64_t>(whole + static_cast<int64_t>(std::floor(rest + 0.5)));
}

// `x` is finite and within bounds; not so if it is NaN.
void check_number(double x, double least, double most, const char* name, const Require& require) {
  if (x >= least && x <= most) return;
  require.fail(name, message("got ", x), message("between ", least, " and ", most));
}

void check_scaling(const Rope& rope, const Require& require) {
  if (rope.scaling < RopeScaling::kNone || rope.scaling > RopeScaling::kLlama3) {
    require.fail("rope.scaling", message("got ", static_cast<int>(rope.scaling)),
                 "a value of RopeScaling");
  }
  check_number(rope.factor, 1, kMaxFactor, "rope.factor", require);
  if (rope.scaling == RopeScaling::kNone && rope.factor != 1) {
    require.fail("rope.factor", message("got ", rope.factor, " without a scaling"), "1");
  }
  if (rope.scaling != RopeScaling::kLlama3) return;
  check_number(rope.low_freq_factor, 0, kMaxFactor, "rope.low_freq_factor", require);
  check_number(rope.high_freq_factor, 0, kMaxFactor, "rope.high_freq_factor", require);
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    require.fail("rope.high_freq_factor", message("got ", rope.high_freq_factor),
                 message("greater than low_freq_factor ", rope.low_freq_factor));
  }
  if (rope.original_length <= 0) {
    require.fail("rope.original_length", message("got ", rope.original_length), "greater than 0");
  }
}

}  // namespace

Rope checked_rope(Rope rope, int64_t head_dim, const char* function) {
  const Require require(function);
  if (rope.pairs == RopePairs::kNone) {
    if (!(rope == Rope{})) {
      require.fail("rope.pairs", "not said", "RopePairs::kHalves or RopePairs::kInterleaved");
    }
    return rope;
  }
  if (rope.pairs != RopePairs::kHalves && rope.pairs != RopePairs::kInterleaved) {
    require.fail("rope.pairs", message("got ", static_cast<int>(rope.pairs)),
                 "a value of RopePairs");
  }
  check_number(rope.base, 1, kMaxBase, "rope.base", require);
  if (rope.rotary_dim == 0) rope.rotary_dim = head_dim;
  if (rope.rotary_dim <= 0 || rope.rotary_dim > head_dim || rope.rotary_dim % 2 != 0) {
    require.fail("rope.rotary_dim", message("got ", rope.rotary_dim),
                 message("even, at least 2 and at most head_dim ", head_dim));
  }
  check_scaling(rope, require);
  return rope;
}

std::vector<uint64_t> rotary_steps(const Rope& rope) {
  const DefaultFloatEnv env;
  const Wide ratio = ratio_of(rope);
  std::vector<uint64_t> steps;
  Wide turns{0x1.45f306dc9c883p-3, -0x1.6b01ec5417056p-57};  // 1 / (2 pi), a radian
  for (int64_t i = 0; i < rope.rotary_dim / 2; ++i, turns = turns / ratio) {
    steps.push_back(in_units(scaled(turns, rope)));
  }
  return steps;
}

template <class T>
void rotary_row(const std::vector<uint64_t>& steps, int64_t position, bool interleaved, Turn turn,
                T* cosine, T* sine) {
  for (size_t i = 0; i < steps.size(); ++i) {
    const SineCosine at = sine_cosine(static_cast<uint64_t>(position) * steps[i]);
    const auto c = static_cast<T>(at.cosine);
    const auto s = static_cast<T>(turn == Turn::kForward ? at.sine : -at.sine);
    if (interleaved) {
      cosine[2 * i] = cosine[2 * i + 1] = c;
      sine[2 * i] = -s;
      sine[2 * i + 1] = s;
    } else {
      cosine[i] = c;
      sine[i] = s;
    }
  }
}

template void rotary_row(const std::vector<uint64_t>&, int64_t, bool, Turn, float*, float*);
template void rotary_row(const std::vector<uint64_t>&, int64_t, bool, Turn, double*, double*);

}  // namespace polyhead
