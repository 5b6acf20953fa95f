#include "report/sha256.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace polyhead {
namespace {

// The standard's constants are the first 32 bits of the fractional parts of the cube roots (rounds)
// and square roots (start) of the first primes: computed here in integers rather than listed.
constexpr bool is_prime(uint32_t n) {
  for (uint32_t d = 2; d * d <= n; ++d) {
    if (n % d == 0) return false;
  }
  return true;
}

// The largest x with x^power <= prime * 2^(32 * power), modulo 2^32: the fraction of the root.
constexpr uint32_t root_fraction(uint32_t prime, int power) {
  unsigned __int128 x = 0;
  for (int bit = 36; bit >= 0; --bit) {  // roots of primes below 512 are under 2^5
    const unsigned __int128 y = x | (static_cast<unsigned __int128>(1) << bit);
    // y^3 would need 111 bits and prime * 2^96 105 bits: both fit in 128.
    const unsigned __int128 raised = power == 2 ? y * y : y * y * y;
    if (raised <= static_cast<unsigned __int128>(prime) << (32 * power)) x = y;
  }
  return static_cast<uint32_t>(x);
}

template <size_t N>
constexpr std::array<uint32_t, N> prime_roots(int power) {
  std::array<uint32_t, N> out{};
  uint32_t prime = 2;
  for (size_t i = 0; i < N; ++prime) {
    if (is_prime(prime)) out[i++] = root_fraction(prime, power);
  }
  return out;
}

constexpr auto kStart = prime_roots<8>(2);
constexpr auto kRound = prime_roots<64>(3);

constexpr uint32_t choose(uint32_t x, uint32_t y, uint32_t z) { return (x & y) ^ (~x & z); }
constexpr uint32_t majority(uint32_t x, uint32_t y, uint32_t z) {
  return (x & y) ^ (x & z) ^ (y & z);
}
constexpr uint32_t rotations(uint32_t x, int a, int b, int c) {
  return std::rotr(x, a) ^ std::rotr(x, b) ^ std::rotr(x, c);
}

std::array<uint32_t, 64> message_schedule(const uint8_t* block) {
  std::array<uint32_t, 64> w;
  for (size_t t = 0; t < 16; ++t) {
    w[t] = static_cast<uint32_t>(block[4 * t] << 24 | block[4 * t + 1] << 16 |
                                 block[4 * t + 2] << 8 | block[4 * t + 3]);
  }
  for (size_t t = 16; t < 64; ++t) {
    const uint32_t s0 = std::rotr(w[t - 15], 7) ^ std::rotr(w[t - 15], 18) ^ (w[t - 15] >> 3);
    const uint32_t s1 = std::rotr(w[t - 2], 17) ^ std::rotr(w[t - 2], 19) ^ (w[t - 2] >> 10);
    w[t] = w[t - 16] + s0 + w[t - 7] + s1;
  }
  return w;
}

}  // namespace

Sha256::Sha256() : state_(kStart) {}

void Sha256::absorb(const uint8_t* block) {
  const auto w = message_schedule(block);
  auto [a, b, c, d, e, f, g, h] = state_;
  for (size_t t = 0; t < 64; ++t) {
    const uint32_t t1 = h + rotations(e, 6, 11, 25) + choose(e, f, g) + kRound[t] + w[t];
    const uint32_t t2 = rotations(a, 2, 13, 22) + majority(a, b, c);
    h = g, g = f, f = e, e = d + t1;
    d = c, c = b, b = a, a = t1 + t2;
  }
  const std::array<uint32_t, 8> worked = {a, b, c, d, e, f, g, h};
  for (size_t i = 0; i < 8; ++i) state_[i] += worked[i];
}

void Sha256::update(const void* data, size_t bytes) {
  const auto* from = static_cast<const uint8_t*>(data);
  total_bytes_ += bytes;
  while (bytes > 0) {
    const size_t taken = std::min(bytes, block_.size() - filled_);
    std::memcpy(block_.data() + filled_, from, taken);
    filled_ += taken, from += taken, bytes -= taken;
    if (filled_ == block_.size()) {
      absorb(block_.data());
      filled_ = 0;
    }
  }
}

Sha256::Digest Sha256::finish() {
  const uint64_t total_bits = total_bytes_ * 8;
  const uint8_t one = 0x80, zero = 0;
  update(&one, 1);
  while (filled_ != 56) update(&zero, 1);
  for (int shift = 56; shift >= 0; shift -= 8) {
    const auto byte = static_cast<uint8_t>(total_bits >> shift);
    update(&byte, 1);
  }
  Digest digest;
  for (size_t i = 0; i < digest.size(); ++i) {
    digest[i] = static_cast<uint8_t>(state_[i / 4] >> (24 - 8 * (i % 4)));
  }
  return digest;
}

Sha256::Digest sha256(std::string_view text) {
  Sha256 hash;
  hash.update(text.data(), text.size());
  return hash.finish();
}

std::string hex(const Sha256::Digest& digest) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (const uint8_t byte : digest) {
    out += kDigits[byte >> 4];
    out += kDigits[byte & 15];
  }
  return out;
}

}  // namespace polyhead
