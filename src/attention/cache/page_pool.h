// Which pages of a cache belong to which sequence. Knows nothing of what is in them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace polyhead {

// A sequence has positions [0, length), of which those in pages first_page .. are kept: the pages
// `pages`, in order.
struct SequencePages {
  std::vector<int32_t> pages;
  int64_t first_page = 0, length = 0;
};

class PagePool {
 public:
  // window: how many positions, itself included, one sees; 0: all before it.
  PagePool(int64_t batch, int64_t page_len, int64_t num_pages, int64_t window);

  int64_t batch() const { return static_cast<int64_t>(sequences_.size()); }
  int64_t page_len() const { return page_len_; }
  int64_t free_pages() const { return static_cast<int64_t>(free_.size()); }
  const SequencePages& sequence(int64_t n) const { return sequences_[static_cast<size_t>(n)]; }
  // The first position that one at `position` sees.
  int64_t first_seen_from(int64_t position) const;
  int64_t first_kept(int64_t n) const { return sequence(n).first_page * page_len_; }

  // Lets sequence n grow by counts[n], and those that grow forget what their new positions do not
  // see. False, and nothing has changed, if there are too few pages; std::bad_alloc likewise.
  bool grow(std::span<const int64_t> counts);
  // How many more pages than are free that would take; more than 0: grow refuses.
  int64_t shortage(std::span<const int64_t> counts) const;
  void truncate(int64_t n, int64_t length) noexcept;

 private:
  // Pages that a sequence has, and will have: [first, end) of its own.
  struct Range {
    int64_t first, end;
  };
  Range held(const SequencePages& of) const {
    return {of.first_page, of.first_page + static_cast<int64_t>(of.pages.size())};
  }
  Range wanted(const SequencePages& of, int64_t count) const;
  void reserve(std::span<const int64_t> counts);

  int64_t page_len_, window_;
  std::vector<SequencePages> sequences_;
  std::vector<int32_t> free_;  // the next one last; has room for all
};

}  // namespace polyhead
