// Any bytes are either refused with an exception of ours, or every promise of the header holds.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include <polyhead/error.h>
#include <polyhead/io.h>
#include "io/elements.h"
#include "io/safetensors_reader.h"

namespace {

void require(bool holds) {
  if (!holds) __builtin_trap();
}

// The refusal must fit one line of a terminal, whatever the names in the file.
void check_message(const std::exception& error) {
  for (const char c : std::string(error.what())) require(c != '\n' && c != '\x1b' && c != '\0');
}

void read_all(const polyhead::SafetensorsReader& reader, size_t file_bytes) {
  int64_t covered = reader.header().data_start;
  for (const polyhead::SafetensorsEntry& entry : reader.header().entries) {
    require(entry.begin >= 0 && entry.begin <= entry.end && !entry.name.empty());
    require(reader.header().find(entry.name) == &entry);
    covered += entry.end - entry.begin;
    try {
      const polyhead::Tensor tensor = polyhead::widened(reader.read(entry.name));
      require(tensor.rank() == static_cast<int>(entry.shape.size()));
    } catch (const polyhead::Unsupported& error) {
      check_message(error);
    } catch (const polyhead::IoError& error) {  // a bool that is neither 0 nor 1
      require(entry.dtype == "BOOL");
      check_message(error);
    }
  }
  require(covered == static_cast<int64_t>(file_bytes));
}

}  // namespace

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

// Nearly every change of the header makes its length wrong, and the parser stops there: so most of
// the time the length is set to where the last brace is.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  size = LLVMFuzzerMutate(data, size, max_size);
  const auto text = std::span(data, size);
  const auto brace = std::find(text.rbegin(), text.rend(), '}').base();
  if (seed % 8 == 0 || brace - text.begin() < 8) return size;
  uint64_t length = static_cast<uint64_t>(brace - text.begin()) - 8;
  for (size_t i = 0; i < 8; ++i, length >>= 8) data[i] = static_cast<uint8_t>(length);
  return size;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  try {
    const polyhead::SafetensorsReader reader(
        std::make_unique<polyhead::MemorySource>("fuzz", bytes), "fuzz.safetensors", {});
    read_all(reader, size);
  } catch (const polyhead::IoError& error) {
    check_message(error);
  }
  return 0;
}
