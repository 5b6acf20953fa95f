#include "score_mod.h"

#include <cstdint>
#include <utility>

#include "arrays.h"

namespace polyhead::python {
namespace {

thread_local bool inside = false;

class Inside {
 public:
  Inside() : before_(std::exchange(inside, true)) {}
  ~Inside() { inside = before_; }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

 private:
  bool before_;
};

// use(score of the block, the same of the dense array) for each.
template <class T, class Use>
void for_each_score(const ScoreBlock& block, const TensorView& dense, const Use& use) {
  auto* const scores = static_cast<T*>(block.scores);
  auto* own = static_cast<T*>(dense.data());
  for (int64_t i = 0; i < block.num_queries; ++i) {
    T* score = scores + i * block.query_stride;
    for (int64_t j = 0; j < block.num_keys; ++j, score += block.key_stride) use(score, own++);
  }
}

template <class T>
void change_scores(const ScoreBlock& block, const nb::object& function) {
  const int64_t shape[] = {block.num_queries, block.num_keys};
  const NewArray scores = new_array(shape, block.dtype);
  for_each_score<T>(block, scores.view, [](const T* from, T* to) { *to = *from; });
  function(scores.array, block.batch, block.head, block.first_query, block.first_key);
  for_each_score<T>(block, scores.view, [](T* to, const T* from) { *to = *from; });
}

}  // namespace

bool in_score_function() { return inside; }

// The array is a copy, since the function may keep it.
void ScoreFunction::change(const ScoreBlock& block, void* self) {
  const nb::gil_scoped_acquire alone;
  auto* const own = static_cast<ScoreFunction*>(self);
  if (own->raised_) return;
  const Inside here;
  try {
    block.dtype == DType::kFloat32 ? change_scores<float>(block, own->function_)
                                   : change_scores<double>(block, own->function_);
  } catch (...) {
    // Another thread's call may have begun in the middle of this one, and raised before it.
    if (!own->raised_) own->raised_ = std::current_exception();
  }
}

}  // namespace polyhead::python
