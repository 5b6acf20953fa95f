// What the linear layer and its gradients share: operands as matrices, and the product on the pool.
#pragma once

#include <algorithm>
#include <cstddef>
#include <new>
#include <string>

#include <polyhead/tensor_view.h>
#include "attention/call_checks.h"
#include "base/checked_math.h"
#include "base/float_type.h"
#include "base/message.h"
#include "base/parallel_tasks.h"
#include "kernels/gemm.h"
#include "module/require.h"

namespace polyhead {

// [rows, features], [batch, len, features] or [batch, heads, len, head_dim].
struct LinearOperand {
  int64_t batch = 0, len = 0, features = 0;

  LinearOperand(const Require& require, const ConstTensorView& view, const char* name,
                DType dtype) {
    require.given(view, name);
    const int rank = view.rank();
    if (rank < 2 || rank > 4) {
      require.fail(name, "shape is " + view.shape_string(),
                   "[rows, features], [batch, len, features] or [batch, heads, len, head_dim]");
    }
    require_dtype(require, view, name, dtype);
    batch = rank == 2 ? 1 : view.size(0);
    len = view.size(rank - 2);
    features = view.size(rank - 1) * (rank == 4 ? view.size(1) : 1);
  }

  size_t rows() const { return static_cast<size_t>(batch * len); }

  void require_rows_of(const LinearOperand& other, const Require& require, const char* name,
                       const char* other_name) const {
    if (batch == other.batch && len == other.len) return;
    require.fail(name, message("has batch ", batch, ", length ", len),
                 message("batch ", other.batch, ", length ", other.len, ", as ", other_name));
  }

  void require_features(int64_t need, const Require& require, const char* name) const {
    if (features == need) return;
    require.fail(name, message("has ", features, " features"), message(need, " wide"));
  }
};

// An input may be read again after the first numbers of an output are written.
inline void require_apart(const Require& require, const ConstTensorView& output, const char* name,
                          const ConstTensorView& other, const char* other_name) {
  if (!overlap(extent_of(output), extent_of(other))) return;
  require.fail(name, message("overlaps ", other_name), "memory of its own");
}

// Two dimensions as one axis; as one step where their elements lie evenly.
inline Axis joined_axis(const ConstTensorView& view, int outer, int inner) {
  const int64_t size = view.size(inner), step = view.stride(inner);
  if (outer < 0) return {static_cast<size_t>(std::max<int64_t>(size, 1)), 0, step};
  const bool even = view.stride(outer) == size * step;
  const int64_t joined = even ? size * view.size(outer) : size;
  return {static_cast<size_t>(std::max<int64_t>(joined, 1)), view.stride(outer), step};
}

// An operand as [rows, features].
template <class T, class View>
Matrix<T> matrix_of(const View& view) {
  const int rank = view.rank();
  return {static_cast<T*>(view.data()), joined_axis(view, rank == 2 ? -1 : 0, rank - 2),
          joined_axis(view, rank == 4 ? 1 : -1, rank - 1)};
}

// What one task takes: rows whose part of a stays in L2, panels that follow each other through it.
// Less where there would be too few tasks for the threads to share out evenly.
struct TaskSize {
  size_t rows = 96, panels = 4;

  TaskSize(size_t all_rows, size_t all_panels) {
    const auto threads = static_cast<size_t>(num_threads());
    const auto enough = [&] {
      return num_panels(all_rows, rows) * num_panels(all_panels, panels) >= 4 * threads;
    };
    while (threads > 1 && rows > 24 && !enough()) rows /= 2;
    while (threads > 1 && panels > 1 && !enough()) panels /= 2;
  }
};

// Of the block nothing is missing but its rows and panels.
template <class T>
void run_product(const GemmBlock<T>& whole, size_t rows) {
  const size_t panel = whole.first / kPanel<T>;
  const size_t panels = num_panels(whole.last, kPanel<T>) - panel;
  const TaskSize size(rows, panels);
  const size_t row_tasks = num_panels(rows, size.rows);
  const size_t panel_tasks = num_panels(panels, size.panels);
  const double flops = 2.0 * static_cast<double>(rows) *
                       static_cast<double>(whole.last - whole.first) * static_cast<double>(whole.k);
  const GemmKernel<T> kernel = gemm_kernel<T>(active_isa());
  parallel_tasks(row_tasks * panel_tasks, flops, 0, [&](size_t task, std::byte*) {
    GemmBlock<T> block = whole;
    block.row_begin = task / panel_tasks * size.rows;
    block.row_end = std::min(rows, block.row_begin + size.rows);
    block.panel_begin = panel + task % panel_tasks * size.panels;
    block.panel_end = std::min(panel + panels, block.panel_begin + size.panels);
    kernel.run(block);
  });
}

// What packing costs in time, as flops: a byte takes as long as three.
inline constexpr double kPackFlopsPerByte = 3;

template <class T>
size_t padded(size_t columns) {
  return num_panels(columns, kPanel<T>) * kPanel<T>;
}

// The bytes of [panels of columns, rows, kPanel]. A view that repeats its elements may have any
// size.
template <class T>
size_t panel_bytes(size_t columns, size_t rows) {
  int64_t bytes = 0;
  const auto width = static_cast<int64_t>(padded<T>(columns) * sizeof(T));
  if (!checked_multiply(width, static_cast<int64_t>(rows), &bytes)) throw std::bad_alloc();
  return static_cast<size_t>(bytes);
}

}  // namespace polyhead
