#include "attention/cache/page_pool.h"

#include <algorithm>

namespace polyhead {

PagePool::PagePool(int64_t batch, int64_t page_len, int64_t num_pages, int64_t window)
    : page_len_(page_len),
      window_(window),
      sequences_(static_cast<size_t>(batch)),
      free_(static_cast<size_t>(num_pages)) {
  for (size_t n = 0; n < free_.size(); ++n) {
    free_[n] = static_cast<int32_t>(free_.size() - 1 - n);  // page 0 first
  }
}

int64_t PagePool::first_seen_from(int64_t position) const {
  return window_ == 0 ? 0 : std::max<int64_t>(position - window_ + 1, 0);
}

PagePool::Range PagePool::wanted(const SequencePages& of, int64_t count) const {
  if (count == 0) return held(of);
  const int64_t first = first_seen_from(of.length) / page_len_;
  return {std::max(first, of.first_page), (of.length + count + page_len_ - 1) / page_len_};
}

int64_t PagePool::shortage(std::span<const int64_t> counts) const {
  int64_t more = -free_pages();
  for (size_t n = 0; n < sequences_.size(); ++n) {
    const Range now = held(sequences_[n]), then = wanted(sequences_[n], counts[n]);
    more += (then.end - then.first) - (now.end - now.first);
  }
  return more;
}

// All memory that grow needs. Twice what there was: growing page by page copies a table seldom.
void PagePool::reserve(std::span<const int64_t> counts) {
  for (size_t n = 0; n < sequences_.size(); ++n) {
    SequencePages& of = sequences_[n];
    const auto most = static_cast<size_t>(wanted(of, counts[n]).end - of.first_page);
    if (most > of.pages.capacity()) of.pages.reserve(std::max(most, 2 * of.pages.capacity()));
  }
}

bool PagePool::grow(std::span<const int64_t> counts) {
  if (shortage(counts) > 0) return false;
  reserve(counts);
  // What one sequence forgets another may need.
  for (size_t n = 0; n < sequences_.size(); ++n) {
    SequencePages& of = sequences_[n];
    const int64_t forgotten = wanted(of, counts[n]).first - of.first_page;
    free_.insert(free_.end(), of.pages.begin(), of.pages.begin() + forgotten);
    of.pages.erase(of.pages.begin(), of.pages.begin() + forgotten);
    of.first_page += forgotten;
  }
  for (size_t n = 0; n < sequences_.size(); ++n) {
    SequencePages& of = sequences_[n];
    for (int64_t end = wanted(of, counts[n]).end; held(of).end < end; free_.pop_back()) {
      of.pages.push_back(free_.back());
    }
    of.length += counts[n];
  }
  return true;
}

void PagePool::truncate(int64_t n, int64_t length) noexcept {
  SequencePages& of = sequences_[static_cast<size_t>(n)];
  of.length = length;
  for (const int64_t end = (length + page_len_ - 1) / page_len_;
       !of.pages.empty() && held(of).end > end; of.pages.pop_back()) {
    free_.push_back(of.pages.back());
  }
  if (of.pages.empty()) of.first_page = length / page_len_;
}

}  // namespace polyhead
