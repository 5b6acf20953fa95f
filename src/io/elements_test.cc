#include "io/elements.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "io/test_files.h"

namespace polyhead {
namespace {

#if defined(__aarch64__)
using Float16 = __fp16;  // GCC 12 does not know it there by its common name
#else
using Float16 = _Float16;
#endif

constexpr uint32_t kQuietBit = 0x00400000;  // hardware sets it when it converts a NaN; we keep it

TEST(Widen, EveryFloat16IsWhatTheCompilerMakesOfIt) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto narrow = static_cast<uint16_t>(bits);
    const auto want = static_cast<float>(std::bit_cast<Float16>(narrow));
    const auto got_bits = std::bit_cast<uint32_t>(widen_float16(narrow));
    const auto want_bits = std::bit_cast<uint32_t>(want);
    const uint32_t ignored = std::isnan(want) ? kQuietBit : 0;
    EXPECT_EQ(got_bits | ignored, want_bits | ignored) << std::hex << bits;
    EXPECT_EQ(std::isnan(widen_float16(narrow)), std::isnan(want)) << std::hex << bits;
  }
}

TEST(Widen, EveryBfloat16IsTheUpperHalfOfAFloat32) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    EXPECT_EQ(std::bit_cast<uint32_t>(widen_bfloat16(static_cast<uint16_t>(bits))), bits << 16);
  }
}

TEST(Bools, OnlyZeroAndOneAreRead) {
  const MemorySource source("here", {});
  Tensor tensor(DType::kBool, {3});
  bytes_of(tensor)[1] = std::byte{1};
  EXPECT_NO_THROW(check_bools(source, "", tensor));
  for (int value = 2; value < 256; ++value) {
    bytes_of(tensor)[2] = static_cast<std::byte>(value);
    expect_refused<IoError>([&] { check_bools(source, "w: ", tensor); },
                            {"here: w: data: bool element 2 is " + std::to_string(value)});
  }
}

TEST(ReverseBytes, TurnsEachElement) {
  std::byte bytes[] = {std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}};
  reverse_bytes(bytes, 2);
  EXPECT_EQ(bytes[0], std::byte{2});
  EXPECT_EQ(bytes[3], std::byte{3});
}

}  // namespace
}  // namespace polyhead
