#include "module/linear.h"

#include <algorithm>

#include "base/parallel_tasks.h"
#include "kernels/gemm.h"

namespace polyhead {
namespace {

// Rows that one task takes through its panels: its part of x stays in L2 meanwhile.
constexpr size_t kTaskRows = 96;
constexpr size_t kTaskPanels = 4;

template <class T, class Data>
RowMap<T> rows_of(const ConstTensorView& view, Data* data) {
  const int len = view.rank() - 2;
  return {static_cast<T*>(data), static_cast<size_t>(std::max<int64_t>(view.size(len), 1)),
          view.stride(0), view.stride(len), view.stride(len + 1)};
}

// out: [batch, groups, len, columns of a group]
template <class T>
void place_columns(const TensorView& out, int64_t first, GemmBlock<T>* block) {
  const bool side_by_side = out.stride(1) == out.size(3) * out.stride(3);
  block->out = rows_of<T>(out, out.data());
  block->group = static_cast<size_t>(side_by_side ? out.size(1) * out.size(3) : out.size(3));
  block->group_stride = out.stride(1);
  block->first = static_cast<size_t>(first);
  block->last = static_cast<size_t>(first + out.size(1) * out.size(3));
}

// Of the block nothing is missing but its rows and panels.
template <class T>
void run_block(const GemmBlock<T>& whole, size_t rows) {
  const size_t panel = whole.first / kPanel<T>;
  const size_t panels = num_panels(whole.last, kPanel<T>) - panel;
  const size_t row_tasks = (rows + kTaskRows - 1) / kTaskRows;
  const size_t panel_tasks = (panels + kTaskPanels - 1) / kTaskPanels;
  const double flops = 2.0 * static_cast<double>(rows) *
                       static_cast<double>(whole.last - whole.first) * static_cast<double>(whole.k);
  const GemmKernel<T> kernel = gemm_kernel<T>(active_isa());
  parallel_tasks(row_tasks * panel_tasks, flops, 0, [&](size_t task, std::byte*) {
    GemmBlock<T> block = whole;
    block.row_begin = task / panel_tasks * kTaskRows;
    block.row_end = std::min(rows, block.row_begin + kTaskRows);
    block.panel_begin = panel + task % panel_tasks * kTaskPanels;
    block.panel_end = std::min(panel + panels, block.panel_begin + kTaskPanels);
    kernel.run(block);
  });
}

// What packing costs in time, as flops: a byte takes as long as three.
constexpr double kFlopsPerByte = 3;

template <class T>
void pack(const ConstTensorView& weight, T* packed) {
  PackBlock<T> whole;
  whole.weight = weight.data_as<T>();
  whole.row_stride = weight.stride(0);
  whole.column_stride = weight.stride(1);
  whole.n = static_cast<size_t>(weight.size(0));
  whole.k = static_cast<size_t>(weight.size(1));
  whole.packed = packed;
  const size_t panels = num_panels(whole.n, kPanel<T>);
  const double bytes = static_cast<double>(panels * kPanel<T> * whole.k * sizeof(T));
  const GemmKernel<T> kernel = gemm_kernel<T>(active_isa());
  parallel_tasks(panels, bytes * kFlopsPerByte, 0, [&](size_t panel, std::byte*) {
    PackBlock<T> block = whole;
    block.panel_begin = panel;
    block.panel_end = panel + 1;
    kernel.pack(block);
  });
}

// bias -> [panels * panel], zeros where there is none.
template <class T>
void pad_bias(const ConstTensorView& bias, size_t count, T* padded) {
  std::fill_n(padded, count, T{0});
  for (int64_t i = 0; bias.defined() && i < bias.size(0); ++i) {
    padded[i] = bias.data_as<T>()[i * bias.stride(0)];
  }
}

template <class F>
void with_type(DType dtype, const F& f) {
  if (dtype == DType::kFloat32) return f(float());
  f(double());
}

}  // namespace

PackedLinear::PackedLinear(const ConstTensorView& weight, const ConstTensorView& bias) {
  assign(weight, bias);
}

void PackedLinear::assign(const ConstTensorView& weight, const ConstTensorView& bias) {
  with_type(weight.dtype(), [&](auto type) {
    using T = decltype(type);
    const size_t columns = num_panels(static_cast<size_t>(weight.size(0)), kPanel<T>) * kPanel<T>;
    if (!packed_ || weight.dtype() != dtype_ || weight.size(0) != out_features_ ||
        weight.size(1) != in_features_) {
      packed_ = allocate_aligned(columns * static_cast<size_t>(weight.size(1)) * sizeof(T));
      bias_ = allocate_aligned(columns * sizeof(T));
    }
    in_features_ = weight.size(1);
    out_features_ = weight.size(0);
    dtype_ = weight.dtype();
    pack(weight, reinterpret_cast<T*>(packed_.get()));
    pad_bias(bias, columns, reinterpret_cast<T*>(bias_.get()));
  });
}

void PackedLinear::run(const ConstTensorView& x, const TensorView& out, int64_t first) const {
  with_type(dtype_, [&](auto type) {
    using T = decltype(type);
    GemmBlock<T> block;
    block.a = rows_of<const T>(x, x.data());
    place_columns(out.rank() == 3 ? out.unsqueezed(1) : out, first, &block);
    block.packed = reinterpret_cast<const T*>(packed_.get());
    block.bias = reinterpret_cast<const T*>(bias_.get());
    block.k = static_cast<size_t>(in_features_);
    run_block(block, static_cast<size_t>(x.size(0) * x.size(1)));
  });
}

}  // namespace polyhead
