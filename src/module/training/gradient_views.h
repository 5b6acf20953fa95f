// Small steps on the tensors of a backward: float32 or float64, any strides, one thread.
#pragma once

#include <polyhead/tensor_view.h>

namespace polyhead {

void set_zero(const TensorView& view);  // undefined: nothing
// to += from, or to = from, of one shape.
void add_elements(const ConstTensorView& from, const TensorView& to);
void copy_elements(const ConstTensorView& from, const TensorView& to);

// Whether b goes on where a ends along the first dimension of one tensor; two undefined views do.
bool adjoin(const TensorView& a, const TensorView& b);
// `first` and the `count` - 1 views that adjoin it, as one.
TensorView adjoined(const TensorView& first, int count);

// x [batch, len, features]
bool all_finite(const ConstTensorView& x);
// Copies x, but with zeros for the rows (b, l) whose d_y [batch, len, columns] is all zero: in
// d_y^T . x they would add nothing, unless they hold NaN.
void copy_used_rows(const ConstTensorView& x, const ConstTensorView& d_y, const TensorView& to);

// Of three projections, runs in which each joins the next: body(first, count).
template <class Joins, class Body>
void for_each_run(const Joins& joins, const Body& body) {
  for (int first = 0, end = 1; first < 3; first = end++) {
    while (end < 3 && joins(end - 1, end)) ++end;
    body(first, end - first);
  }
}

}  // namespace polyhead
