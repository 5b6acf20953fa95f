// A score_mod that is a function of Python's.
#pragma once

#include <nanobind/nanobind.h>
#include <polyhead/score_mod.h>

#include <exception>
#include <utility>

namespace polyhead::python {

// Blocks are changed under the GIL, one after the other, whatever threads they come from.
class ScoreFunction {
 public:
  // function(scores, batch, head, first_query, first_key) changes the numpy array `scores`,
  // [queries, keys], in place.
  explicit ScoreFunction(nanobind::object function) : function_(std::move(function)) {}

  ScoreMod mod() { return {.forward = change, .context = this}; }
  // What the function raised first, if it did: from then on it was not called. With the GIL.
  void rethrow() const {
    if (raised_) std::rethrow_exception(raised_);
  }

 private:
  static void change(const ScoreBlock& block, void* self);

  nanobind::object function_;
  std::exception_ptr raised_;
};

// Whether this thread is inside such a function: a cache that is read must not be changed from
// there.
bool in_score_function();

}  // namespace polyhead::python
