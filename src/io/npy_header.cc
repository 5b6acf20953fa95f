#include "io/npy_header.h"

#include <algorithm>
#include <array>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "base/checked_math.h"
#include "base/escape.h"
#include "io/elements.h"
#include "io/foreign_file.h"
#include "io/npy_dict.h"

namespace polyhead {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr size_t kMaxHeaderBytes = 10'000;  // numpy's own limit
constexpr size_t kMaxPrefixBytes = 12;      // magic, version and a 4-byte length

[[noreturn]] void refuse(const ByteSource& source, const std::string& path,
                         const std::string& why) {
  const std::string hint = foreign_file_hint(source, path);
  source.fail("not an npy file: ", hint.empty() ? why : hint);
}

// Where the dict's text lies.
struct TextRange {
  size_t start, bytes;
};

TextRange find_text(const ByteSource& source, const std::string& path) {
  std::array<uint8_t, kMaxPrefixBytes> prefix = {};
  const auto there = static_cast<size_t>(std::min<int64_t>(source.size(), prefix.size()));
  source.read(0, std::as_writable_bytes(std::span(prefix).first(there)));
  const auto magic_bytes = std::min(there, kMagic.size());
  if (!std::equal(kMagic.begin(), kMagic.begin() + static_cast<std::ptrdiff_t>(magic_bytes),
                  prefix.begin(), [](char a, uint8_t b) { return static_cast<uint8_t>(a) == b; })) {
    refuse(source, path, "it does not begin with \"\\x93NUMPY\"");
  }
  const unsigned version = prefix[6];
  const size_t start = version == 1 ? 10 : 12;
  if (there < start) {
    source.fail("file has ", there, " bytes; truncated within the header (incomplete download?)");
  }
  if (version < 1 || version > 3 || prefix[7] != 0) {
    source.fail("header: version is ", version, ".", +prefix[7], "; need 1.0, 2.0 or 3.0");
  }
  size_t bytes = 0;
  for (size_t i = start; i-- > 8;) bytes = bytes << 8 | prefix[i];
  if (bytes > kMaxHeaderBytes) {
    source.fail("header: length is ", bytes, "; need at most ", kMaxHeaderBytes);
  }
  if (static_cast<int64_t>(start + bytes) > source.size()) {
    source.fail("header: length is ", bytes, " but only ",
                source.size() - static_cast<int64_t>(start),
                " bytes follow; truncated (incomplete download?)");
  }
  return {start, bytes};
}

// "<f4": byte order, kind, element bytes.
void set_dtype(const ByteSource& source, const std::string& descr, NpyHeader* header) {
  constexpr std::pair<std::string_view, DType> kTypes[] = {
      {"f2", DType::kFloat16}, {"f4", DType::kFloat32}, {"f8", DType::kFloat64},
      {"i4", DType::kInt32},   {"i8", DType::kInt64},   {"b1", DType::kBool}};
  const std::string_view text = descr;
  if (text.ends_with('O')) {
    source.fail("header: descr: is an object array: pickled Python, which can run code when loaded",
                " and is never read here");
  }
  const auto* known = std::find_if(std::begin(kTypes), std::end(kTypes), [text](const auto& type) {
    return !text.empty() && type.first == text.substr(1);
  });
  if (known == std::end(kTypes)) {
    source.unsupported("header: descr: is ", in_quotes(descr, 100),
                       "; need one of f2 f4 f8 i4 i8 b1");
  }
  header->dtype = known->second;
  const std::string_view orders = known->second == DType::kBool ? "|" : "<>";
  if (orders.find(text[0]) == orders.npos) {
    source.fail("header: descr: byte order of ", in_quotes(descr, 100), " is '",
                escaped(text.substr(0, 1)), "'; need one of ", orders);
  }
  header->big_endian = text[0] == '>';
}

// Compares the data with the file before anything is allocated for it.
void check_data_bytes(const ByteSource& source, const NpyHeader& header) {
  auto bytes = static_cast<int64_t>(dtype_bytes(header.dtype));
  bool empty = false;
  for (int64_t size : header.shape) {
    empty |= size == 0;
    if (!checked_multiply(bytes, std::max<int64_t>(size, 1), &bytes)) {
      source.fail(
          "header: shape: its sizes other than 0 make more elements than 2^63 bytes can hold");
    }
  }
  if (empty) bytes = 0;
  const int64_t there = source.size() - header.data_start;
  if (there < bytes) {
    source.fail("data: has ", there, " bytes; shape and dtype need ", bytes,
                "; truncated (incomplete download?)");
  }
  if (there > bytes) {
    source.fail("data: has ", there, " bytes; shape and dtype need ", bytes, " and nothing after");
  }
}

}  // namespace

NpyHeader parse_npy_header(const ByteSource& source, const std::string& path) {
  const TextRange range = find_text(source, path);
  std::string text(range.bytes, '\0');
  source.read(static_cast<int64_t>(range.start), std::as_writable_bytes(std::span(text)));
  if (!text.ends_with('\n')) source.fail("header: does not end in a newline");
  NpyDict dict = parse_npy_dict(source, text);
  NpyHeader header;
  set_dtype(source, dict.descr, &header);
  header.fortran_order = dict.fortran_order;
  header.shape = std::move(dict.shape);
  header.data_start = static_cast<int64_t>(range.start + range.bytes);
  check_data_bytes(source, header);
  if (header.shape.size() > static_cast<size_t>(kMaxRank)) {
    source.unsupported("header: shape: has ", header.shape.size(), " dimensions; need at most ",
                       kMaxRank);
  }
  return header;
}

}  // namespace polyhead
