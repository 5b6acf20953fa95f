#include <polyhead/nn/random.h>

#include "base/random.h"
#include "nn/checks.h"

namespace polyhead::nn {
namespace {

template <class Draw>
auto drawn(Random& state, const Draw& draw) {
  polyhead::Random random(state.seed, state.counter);
  const auto number = draw(random);
  state.counter = random.counter();
  return number;
}

}  // namespace

uint64_t Random::bits() {
  return drawn(*this, [](polyhead::Random& random) { return random.bits(); });
}

double Random::uniform() {
  return drawn(*this, [](polyhead::Random& random) { return random.uniform(); });
}

double Random::normal() {
  return drawn(*this, [](polyhead::Random& random) { return random.normal(); });
}

// Draws from the part of the range that is a multiple of the limit.
int64_t Random::below(int64_t limit) {
  if (limit < 1) Require("Random::below").fail("limit", std::to_string(limit), "at least 1");
  const auto n = static_cast<uint64_t>(limit);
  const uint64_t rest = (UINT64_MAX % n + 1) % n;
  for (;;) {
    const uint64_t x = bits();
    if (x <= UINT64_MAX - rest) return static_cast<int64_t>(x % n);
  }
}

}  // namespace polyhead::nn
