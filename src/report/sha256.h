// SHA-256 (FIPS 180-4): for the page's Content-Security-Policy, and to compare results by bits.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace polyhead {

class Sha256 {
 public:
  using Digest = std::array<uint8_t, 32>;

  Sha256();
  void update(const void* data, size_t bytes);
  Digest finish();  // once

 private:
  void absorb(const uint8_t* block);

  std::array<uint32_t, 8> state_;
  std::array<uint8_t, 64> block_{};
  size_t filled_ = 0;
  uint64_t total_bytes_ = 0;
};

Sha256::Digest sha256(std::string_view text);
std::string hex(const Sha256::Digest& digest);  // 64 lower-case digits

}  // namespace polyhead
