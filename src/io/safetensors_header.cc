#include "io/safetensors_header.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <numeric>
#include <tuple>

#include <nlohmann/json.hpp>

#include "base/checked_math.h"
#include "base/escape.h"
#include "io/foreign_file.h"
#include "io/safetensors_dtype.h"
#include "io/safetensors_sax.h"

namespace polyhead {
namespace {

constexpr int64_t kLengthBytes = 8;
constexpr std::string_view kShortestEntry = R"("a":{"dtype":"F4","shape":[],"data_offsets":[0,0]})";

// The header's text, one piece at a time. Sees what the JSON library takes for the end or skips:
// NUL, and what follows the last brace.
class HeaderText {
 public:
  HeaderText(const ByteSource& source, int64_t bytes)
      : source_(source), left_(bytes), piece_(static_cast<size_t>(std::min(bytes, kPieceBytes))) {}

  bool at_end() { return next_ == end_ && !refill(); }
  char current() const { return *next_; }
  void advance() { ++next_; }
  char last() const { return last_; }  // of what was read, spaces aside

 private:
  static constexpr int64_t kPieceBytes = 65536;

  bool refill() {
    if (left_ == 0) return false;
    const int64_t bytes = std::min(left_, kPieceBytes);
    const std::span piece(piece_.data(), static_cast<size_t>(bytes));
    source_.read(offset_, std::as_writable_bytes(piece));
    next_ = piece.data();
    end_ = next_ + piece.size();
    const std::string_view text(next_, piece.size());
    if (const size_t nul = text.find('\0'); nul != text.npos) {
      source_.fail("header: NUL at byte ", offset_ - kLengthBytes + static_cast<int64_t>(nul),
                   "; need JSON, padded with spaces only");
    }
    if (const size_t last = text.find_last_not_of(' '); last != text.npos) last_ = text[last];
    offset_ += bytes;
    left_ -= bytes;
    return true;
  }

  const ByteSource& source_;
  int64_t offset_ = kLengthBytes, left_;
  std::vector<char> piece_;
  const char* next_ = nullptr;
  const char* end_ = nullptr;
  char last_ = '\0';
};

// What nlohmann::json asks of its input. The end is the iterator without a text.
class HeaderIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = char;

  explicit HeaderIterator(HeaderText* text = nullptr) : text_(text) {}
  char operator*() const { return text_->current(); }
  HeaderIterator& operator++() {
    text_->advance();
    return *this;
  }
  bool operator!=(const HeaderIterator&) const { return !text_->at_end(); }

 private:
  HeaderText* text_;
};

[[noreturn]] void refuse(const ByteSource& source, const std::string& path,
                         const std::string& why) {
  const std::string hint = foreign_file_hint(source, path);
  source.fail(hint.empty() ? why : "not a safetensors file: " + hint);
}

// N, the length of the JSON, checked against the limit and the file.
int64_t read_length(const ByteSource& source, const std::string& path,
                    const SafetensorsOptions& options) {
  if (source.size() < kLengthBytes) {
    refuse(source, path,
           message("file has ", source.size(), " bytes; need at least ", kLengthBytes,
                   " for the header's length (incomplete download?)"));
  }
  std::array<uint8_t, kLengthBytes> bytes;
  source.read(0, std::as_writable_bytes(std::span(bytes)));
  uint64_t length = 0;
  for (size_t i = bytes.size(); i-- > 0;) length = length << 8 | bytes[i];
  const auto limit = static_cast<uint64_t>(std::max<int64_t>(options.max_header_bytes, 0));
  if (length > limit) {
    refuse(source, path, message("header length is ", length, "; need at most ", limit));
  }
  if (length < 2) source.fail("header length is ", length, "; need at least 2, for {}");
  const int64_t there = source.size() - kLengthBytes;
  if (static_cast<int64_t>(length) > there) {
    refuse(source, path,
           message("header length is ", length, " but only ", there,
                   " bytes follow; truncated (incomplete download?)"));
  }
  return static_cast<int64_t>(length);
}

// The JSON library would skip a byte order mark and blanks.
void check_first_byte(const ByteSource& source, const std::string& path) {
  char first;
  source.read(kLengthBytes, std::as_writable_bytes(std::span(&first, 1)));
  if (first == '{') return;
  refuse(source, path,
         message("header: begins with ", in_quotes(std::string(1, first)), "; need \"{\""));
}

// Bytes that the shape and dtype ask for. Sizes of 0 count as 1 on the way, so that whether a shape
// is refused does not depend on where its 0 stands.
int64_t data_bytes(const ByteSource& source, const SafetensorsEntry& entry) {
  int64_t bits = find_safetensors_dtype(entry.dtype)->bits;
  bool empty = false;
  for (int64_t size : entry.shape) {
    empty |= size == 0;
    if (!checked_multiply(bits, std::max<int64_t>(size, 1), &bits)) {
      source.fail(shown_tensor(entry.name),
                  ": shape: its sizes other than 0 make more elements than 2^63 bits can hold");
    }
  }
  if (empty) return 0;
  if (bits % 8 != 0) {
    source.fail(shown_tensor(entry.name), ": shape: takes ", bits, " bits of ", entry.dtype,
                "; need whole bytes");
  }
  return bits / 8;
}

void check_range(const ByteSource& source, const SafetensorsEntry& entry, int64_t buffer_bytes) {
  const std::string range = message("[", entry.begin, ", ", entry.end, "]");
  const auto fail = [&](const auto&... parts) {
    source.fail(shown_tensor(entry.name), ": data_offsets: ", parts...);
  };
  if (entry.begin > entry.end) fail("are ", range, "; begin must not be above end");
  if (entry.end > buffer_bytes) {
    fail("are ", range, " but only ", buffer_bytes,
         " bytes follow the header; truncated (incomplete download?)");
  }
  const int64_t needed = data_bytes(source, entry);
  if (entry.end - entry.begin != needed) {
    fail("are ", range, ", ", entry.end - entry.begin, " bytes; shape and dtype ", entry.dtype,
         " need ", needed);
  }
}

// The indices of the entries in an order; most files are written in it already.
template <class Less>
std::vector<size_t> sorted_indices(const std::vector<SafetensorsEntry>& entries, Less less) {
  std::vector<size_t> order(entries.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto by_index = [&](size_t a, size_t b) { return less(entries[a], entries[b]); };
  if (!std::is_sorted(order.begin(), order.end(), by_index)) {
    std::sort(order.begin(), order.end(), by_index);
  }
  return order;
}

// The tensors must tile the data: no gap, no overlap, nothing left over.
void check_tiling(const ByteSource& source, const SafetensorsHeader& header, int64_t buffer_bytes) {
  const auto by_range = [](const auto& a, const auto& b) {
    return std::tie(a.begin, a.end) < std::tie(b.begin, b.end);
  };
  int64_t covered = 0;
  const SafetensorsEntry* before = nullptr;
  for (size_t index : sorted_indices(header.entries, by_range)) {
    const SafetensorsEntry& entry = header.entries[index];
    if (entry.begin != covered) {
      source.fail(shown_tensor(entry.name), ": data_offsets: begins at ", entry.begin,
                  entry.begin > covered ? ", a gap after " : ", an overlap with ",
                  before ? shown_tensor(before->name) : "the start of the data", "; need ",
                  covered);
    }
    covered = entry.end;
    before = &entry;
  }
  if (covered != buffer_bytes) {
    source.fail("data: ", buffer_bytes, " bytes follow the header; the tensors take ", covered);
  }
}

void index_names(const ByteSource& source, SafetensorsHeader* header) {
  const auto& entries = header->entries;
  header->by_name =
      sorted_indices(entries, [](const auto& a, const auto& b) { return a.name < b.name; });
  const auto twice =
      std::adjacent_find(header->by_name.begin(), header->by_name.end(),
                         [&](size_t a, size_t b) { return entries[a].name == entries[b].name; });
  if (twice != header->by_name.end()) {
    source.fail(shown_tensor(entries[*twice].name), ": name: appears twice; names must differ");
  }
}

}  // namespace

const SafetensorsEntry* SafetensorsHeader::find(std::string_view name) const {
  const auto found =
      std::lower_bound(by_name.begin(), by_name.end(), name,
                       [&](size_t index, std::string_view n) { return entries[index].name < n; });
  return found != by_name.end() && entries[*found].name == name ? &entries[*found] : nullptr;
}

SafetensorsHeader parse_safetensors_header(const ByteSource& source, const std::string& path,
                                           const SafetensorsOptions& options) {
  const int64_t length = read_length(source, path, options);
  check_first_byte(source, path);
  SafetensorsHeader header;
  header.data_start = kLengthBytes + length;
  // Room for as many as can be there, so that growing never holds two copies; pages that stay
  // untouched cost nothing.
  header.entries.reserve(static_cast<size_t>(length) / kShortestEntry.size() + 1);
  HeaderText text(source, length);
  SafetensorsSax sax(source, &header);
  nlohmann::json::sax_parse(HeaderIterator(&text), HeaderIterator(), &sax);
  if (text.last() != '}') {
    source.fail("header: ends with ", in_quotes(std::string(1, text.last())),
                "; need \"}\", then spaces only");
  }
  const int64_t buffer_bytes = source.size() - header.data_start;
  for (const SafetensorsEntry& entry : header.entries) check_range(source, entry, buffer_bytes);
  index_names(source, &header);
  check_tiling(source, header, buffer_bytes);
  return header;
}

}  // namespace polyhead
