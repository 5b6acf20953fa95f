// Any bytes are either refused with an exception of ours, or become a tensor that holds all the
// data.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include <polyhead/error.h>
#include "io/elements.h"
#include "io/npy_header.h"

namespace {

void require(bool holds) {
  if (!holds) __builtin_trap();
}

// The refusal must fit one line of a terminal, whatever the header holds.
void check_message(const std::exception& error) {
  for (const char c : std::string(error.what())) require(c != '\n' && c != '\x1b' && c != '\0');
}

}  // namespace

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

// Nearly every change of the header makes its length wrong, and the parser stops there: so most of
// the time the length (of version 1) is set to where the first newline is.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  constexpr std::ptrdiff_t kPrefixBytes = 10;
  size = LLVMFuzzerMutate(data, size, max_size);
  const auto text = std::span(data, size);
  if (seed % 8 == 0 || text.size() < kPrefixBytes) return size;
  const auto newline = std::find(text.begin() + kPrefixBytes, text.end(), '\n');
  if (newline == text.end()) return size;
  const auto length = newline + 1 - text.begin() - kPrefixBytes;
  data[8] = static_cast<uint8_t>(length & 0xff);
  data[9] = static_cast<uint8_t>(length >> 8);
  return size;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const polyhead::MemorySource source("fuzz", std::as_bytes(std::span(data, size)));
  try {
    const polyhead::Tensor tensor = polyhead::read_npy(source, "fuzz.npy");
    require(polyhead::bytes_of(tensor).size() < size);
  } catch (const polyhead::IoError& error) {
    check_message(error);
  } catch (const polyhead::Unsupported& error) {
    check_message(error);
  }
  return 0;
}
