#include "io/npy_dict.h"

#include <array>

#include "base/checked_math.h"
#include "base/escape.h"

namespace polyhead {
namespace {

constexpr size_t kMaxNpyRank = 64;  // numpy's own limit

class DictParser {
 public:
  DictParser(const ByteSource& source, std::string_view text) : source_(source), text_(text) {}

  NpyDict parse() {
    expect('{', "the dict");
    while (!accept('}')) {
      field();
      if (!accept(',')) {
        expect('}', "the dict's end, or a comma");
        break;
      }
    }
    skip_blanks();
    if (next_ != text_.size()) fail("need only blanks after the dict");
    for (size_t i = 0; i < kFields.size(); ++i) {
      if (!seen_[i]) source_.fail("header: ", kFields[i], ": is missing");
    }
    return dict_;
  }

 private:
  static constexpr std::array<std::string_view, 3> kFields = {"descr", "fortran_order", "shape"};

  [[noreturn]] void fail(const std::string& need) const {
    constexpr size_t kShownBytes = 20;
    const std::string found =
        next_ == text_.size() ? "its end" : in_quotes(text_.substr(next_), kShownBytes);
    source_.fail("header: found ", found, " at its byte ", next_, "; ", need);
  }

  void skip_blanks() {
    while (next_ < text_.size() && (text_[next_] == ' ' || text_[next_] == '\n')) ++next_;
  }

  bool accept(char wanted) {
    skip_blanks();
    if (next_ == text_.size() || text_[next_] != wanted) return false;
    ++next_;
    return true;
  }

  void expect(char wanted, const char* what) {
    if (!accept(wanted)) fail(message("need '", wanted, "' for ", what));
  }

  void field() {
    const std::string name = string("a field's name");
    size_t i = 0;
    while (i < kFields.size() && kFields[i] != name) ++i;
    if (i == kFields.size()) {
      source_.fail("header: field ", in_quotes(name, 100),
                   " is unknown; need descr, fortran_order and shape only");
    }
    if (seen_[i]) source_.fail("header: ", name, ": appears twice");
    seen_[i] = true;
    expect(':', "the field's value");
    if (name == "descr") {
      descr();
    } else if (name == "shape") {
      shape();
    } else {
      fortran_order();
    }
  }

  // In either kind of quotes, without escapes: no field needs them.
  std::string string(const char* what) {
    skip_blanks();
    const char quote = next_ < text_.size() ? text_[next_] : '\0';
    if (quote != '\'' && quote != '"') fail(message("need ", what, " in quotes"));
    const size_t end = text_.find(quote, next_ + 1);
    if (end == text_.npos) fail("need the closing quote");
    const std::string value(text_.substr(next_ + 1, end - next_ - 1));
    if (value.find('\\') != value.npos) fail("need a string without escapes");
    next_ = end + 1;
    return value;
  }

  void descr() {
    skip_blanks();
    if (next_ < text_.size() && text_[next_] == '[') {
      source_.unsupported("header: descr: is a structured dtype; need one of f2 f4 f8 i4 i8 b1");
    }
    dict_.descr = string("a dtype");
  }

  void fortran_order() {
    skip_blanks();
    for (const bool value : {false, true}) {
      const std::string_view word = value ? "True" : "False";
      if (text_.substr(next_, word.size()) != word) continue;
      next_ += word.size();
      dict_.fortran_order = value;
      return;
    }
    fail("fortran_order: need True or False");
  }

  // (), (3,), (2, 3): as in Python, one size needs its comma to be a tuple.
  void shape() {
    expect('(', "the shape");
    bool comma = true;
    while (!accept(')')) {
      if (!comma) fail("shape: need ',' or ')'");
      if (dict_.shape.size() == kMaxNpyRank) {
        source_.fail("header: shape: has more than ", kMaxNpyRank, " dimensions; numpy's limit");
      }
      dict_.shape.push_back(size());
      comma = accept(',');
    }
    if (dict_.shape.size() == 1 && !comma) fail("shape: need a tuple, such as (3,)");
  }

  int64_t size() {
    skip_blanks();
    const size_t start = next_;
    int64_t value = 0;
    for (; next_ < text_.size() && text_[next_] >= '0' && text_[next_] <= '9'; ++next_) {
      if (!checked_multiply(value, 10, &value) || !checked_add(value, text_[next_] - '0', &value)) {
        source_.fail("header: shape: element ", dict_.shape.size(), " is above 2^63 - 1");
      }
    }
    if (next_ == start) fail("shape: need whole numbers, in digits only");
    if (text_[start] == '0' && next_ - start > 1) {
      next_ = start;
      fail("shape: need numbers without leading zeros");
    }
    return value;
  }

  const ByteSource& source_;
  std::string_view text_;
  size_t next_ = 0;
  std::array<bool, 3> seen_ = {};
  NpyDict dict_;
};

}  // namespace

NpyDict parse_npy_dict(const ByteSource& source, std::string_view text) {
  return DictParser(source, text).parse();
}

}  // namespace polyhead
