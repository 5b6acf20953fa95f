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
  return {static_cast<T*>(data), static_cast<size_t>(std::max<int64_t>(view.size(1), 1)),
          view.stride(0), view.stride(1), view.stride(2)};
}

template <class T>
void run_packed(const Tensor& packed, const Tensor& bias, const ConstTensorView& x,
                const TensorView& out) {
  GemmBlock<T> whole;
  whole.a = rows_of<const T>(x, x.data());
  whole.out = rows_of<T>(out, out.data());
  whole.packed = packed.data_as<T>();
  whole.bias = bias.data_as<T>();
  whole.k = static_cast<size_t>(packed.size(1));
  whole.n = static_cast<size_t>(out.size(2));
  const auto rows = static_cast<size_t>(x.size(0) * x.size(1));
  const size_t panels = num_panels(whole.n, kPanel<T>);
  const size_t row_tasks = (rows + kTaskRows - 1) / kTaskRows;
  const size_t panel_tasks = (panels + kTaskPanels - 1) / kTaskPanels;
  const double flops =
      2.0 * static_cast<double>(rows) * static_cast<double>(whole.n) * static_cast<double>(whole.k);
  const GemmKernel<T> kernel = gemm_kernel<T>(active_isa());
  parallel_tasks(row_tasks * panel_tasks, flops, 0, [&](size_t task, std::byte*) {
    GemmBlock<T> block = whole;
    block.row_begin = task / panel_tasks * kTaskRows;
    block.row_end = std::min(rows, block.row_begin + kTaskRows);
    block.panel_begin = task % panel_tasks * kTaskPanels;
    block.panel_end = std::min(panels, block.panel_begin + kTaskPanels);
    kernel(block);
  });
}

template <class T>
void pack(const ConstTensorView& weight, const ConstTensorView& bias, Tensor* packed,
          Tensor* padded_bias) {
  const auto n = static_cast<size_t>(weight.size(0)), k = static_cast<size_t>(weight.size(1));
  const auto panels = static_cast<int64_t>(num_panels(n, kPanel<T>));
  const auto panel = static_cast<int64_t>(kPanel<T>);
  *packed = Tensor(weight.dtype(), {panels, weight.size(1), panel});
  *padded_bias = Tensor(weight.dtype(), {panels * panel});
  pack_weight(weight.data_as<T>(), weight.stride(0), weight.stride(1), n, k, packed->data_as<T>());
  for (size_t i = 0; bias.defined() && i < n; ++i) {
    padded_bias->data_as<T>()[i] = bias.data_as<T>()[static_cast<int64_t>(i) * bias.stride(0)];
  }
}

}  // namespace

PackedLinear::PackedLinear(const ConstTensorView& weight, const ConstTensorView& bias)
    : in_features_(weight.size(1)), out_features_(weight.size(0)) {
  if (weight.dtype() == DType::kFloat32) {
    pack<float>(weight, bias, &packed_, &bias_);
  } else {
    pack<double>(weight, bias, &packed_, &bias_);
  }
}

void PackedLinear::run(const ConstTensorView& x, const TensorView& out) const {
  if (packed_.dtype() == DType::kFloat32) {
    run_packed<float>(packed_, bias_, x, out);
  } else {
    run_packed<double>(packed_, bias_, x, out);
  }
}

}  // namespace polyhead
