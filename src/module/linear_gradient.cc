// d_weight[n][k] = sum_m d_y[m][n] * x[m][k]: a product like the forward's, whose a is d_y and
// whose weight is x, both by columns. Both are packed, a pass of rows m at a time: where they lie,
// neighbours along m are a whole row apart, at widths of 2^n all in one set of the cache.
#include "module/linear_gradient.h"

#include <algorithm>
#include <utility>

#include "base/float_env.h"
#include "base/workspace.h"
#include "module/linear_product.h"

namespace polyhead {
namespace {

// A panel of x and one of d_y, 192 KiB each, stay in L2 for a pass; between passes all chains are
// parked, which costs 8 bytes of memory traffic for 2048 flops.
constexpr size_t kPassRows = 1024;
constexpr size_t kPackPanels = 8;  // of one task

// One side of the product: [rows, features], and the panels of a pass.
template <class T>
struct Side {
  Matrix<const T> matrix;
  size_t features = 0;
  T* panels = nullptr;  // [panels, pass_rows, kPanel]

  size_t num_panels() const { return polyhead::num_panels(features, kPanel<T>); }
  size_t num_tasks() const { return (num_panels() + kPackPanels - 1) / kPackPanels; }
};

size_t pass_rows_of(size_t rows) { return std::clamp<size_t>(rows, 1, kPassRows); }

// The parts of the memory, in bytes.
template <class T>
struct Parts {
  size_t x, d_y, sums, parked;

  Parts(size_t rows, size_t in_features, size_t out_features)
      : x(panel_bytes<T>(in_features, pass_rows_of(rows))),
        d_y(panel_bytes<T>(out_features, pass_rows_of(rows))),
        sums(panel_bytes<T>(out_features, 1)),
        parked(rows > pass_rows_of(rows) ? panel_bytes<T>(in_features, out_features) : 0) {}
  size_t all() const { return x + d_y + sums + parked; }
};

template <class T>
class WeightGradient {
 public:
  WeightGradient(const Side<T>& x, const Side<T>& d_y, size_t rows, WorkspaceLease& lease)
      : x_(x), d_y_(d_y), rows_(rows), pass_rows_(pass_rows_of(rows)) {
    const Parts<T> parts(rows, x.features, d_y.features);
    std::byte* memory = lease.reserve(parts.all());
    x_.panels = reinterpret_cast<T*>(memory);
    d_y_.panels = reinterpret_cast<T*>(memory + parts.x);
    sums_ = reinterpret_cast<T*>(memory + parts.x + parts.d_y);
    parked_ = reinterpret_cast<T*>(memory + parts.x + parts.d_y + parts.sums);
  }

  void run(const TensorView& d_weight, const TensorView& d_bias, bool accumulate) {
    std::fill_n(sums_, padded<T>(d_y_.features), T{0});
    size_t first = 0;
    do {
      const size_t count = std::min(rows_ - first, pass_rows_);
      pack_pass(first, count);
      if (d_weight.defined()) multiply_pass(first, count, matrix_of<T>(d_weight), accumulate);
      first += count;
    } while (first < rows_);
    for (size_t n = 0; d_bias.defined() && n < d_y_.features; ++n) {
      T& to = d_bias.data_as<T>()[static_cast<int64_t>(n) * d_bias.stride(0)];
      to = accumulate ? to + sums_[n] : sums_[n];
    }
  }

 private:
  // The sums of d_y's columns are taken where its panels lie in the cache.
  void pack_pass(size_t first, size_t count) {
    const size_t d_y_tasks = d_y_.num_tasks();
    const auto elements = static_cast<double>(count * (x_.features + d_y_.features));
    const double flops = elements * sizeof(T) * kPackFlopsPerByte;
    const GemmKernel<T> kernel = gemm_kernel<T>(active_isa());
    parallel_tasks(d_y_tasks + x_.num_tasks(), flops, 0, [&](size_t task, std::byte*) {
      const bool of_d_y = task < d_y_tasks;
      const Side<T>& side = of_d_y ? d_y_ : x_;
      PackBlock<T> block{.weight = side.matrix.transposed(), .n = side.features};
      block.first_k = first;
      block.k = count;
      block.packed = side.panels;
      block.packed_rows = pass_rows_;
      block.panel_begin = (of_d_y ? task : task - d_y_tasks) * kPackPanels;
      block.panel_end = std::min(block.panel_begin + kPackPanels, side.num_panels());
      kernel.pack(block);
      for (size_t panel = block.panel_begin; of_d_y && panel < block.panel_end; ++panel) {
        const size_t at = panel * kPanel<T>;
        kernel.add_rows(side.panels + at * pass_rows_, count, sums_ + at);
      }
    });
  }

  void multiply_pass(size_t first, size_t count, const Matrix<T>& d_weight, bool accumulate) {
    const auto panel = static_cast<ptrdiff_t>(kPanel<T>);
    const Axis rows{kPanel<T>, panel * static_cast<ptrdiff_t>(pass_rows_), 1};
    GemmBlock<T> block{.a = {d_y_.panels, rows, {pass_rows_, 0, panel}}, .out = d_weight};
    block.packed = x_.panels;
    block.packed_rows = pass_rows_;
    block.add = accumulate;
    block.k = count;
    block.last = x_.features;
    block.parked = parked_;
    block.parked_rows = d_y_.features;
    block.begins = first == 0;
    block.ends = first + count == rows_;
    run_product(block, d_y_.features);
  }

  Side<T> x_, d_y_;
  size_t rows_, pass_rows_;
  T* sums_;    // [out_features, padded]
  T* parked_;  // [panels of in_features, out_features, kPanel]
};

void check_gradient(const Require& require, const ConstTensorView& view, const char* name,
                    Shape need, DType dtype) {
  if (!view.defined()) return;
  require.shape(view, name, need);
  require_dtype(require, view, name, dtype);
}

}  // namespace

size_t linear_weight_gradient_bytes(DType dtype, int64_t rows, int64_t in_features,
                                    int64_t out_features) {
  const auto m = static_cast<size_t>(rows), k = static_cast<size_t>(in_features),
             n = static_cast<size_t>(out_features);
  return dtype == DType::kFloat32 ? Parts<float>(m, k, n).all() : Parts<double>(m, k, n).all();
}

void linear_weight_gradient(const ConstTensorView& x, const ConstTensorView& d_y,
                            const TensorView& d_weight, const TensorView& d_bias, bool accumulate) {
  const Require require("linear_weight_gradient");
  require.given(x, "x");
  const DType dtype = x.dtype();
  if (dtype != DType::kFloat32 && dtype != DType::kFloat64) {
    require.fail("x", message("dtype is ", dtype_name(dtype)), "float32 or float64");
  }
  const LinearOperand in(require, x, "x", dtype), out(require, d_y, "d_y", dtype);
  out.require_rows_of(in, require, "d_y", "x");
  const int64_t shape[] = {out.features, in.features};
  check_gradient(require, d_weight, "d_weight", shape, dtype);
  check_gradient(require, d_bias, "d_bias", Shape(shape, 1), dtype);
  for (const auto& [input, name] : {std::pair(x, "x"), {d_y, "d_y"}}) {
    require_apart(require, d_weight, "d_weight", input, name);
    require_apart(require, d_bias, "d_bias", input, name);
  }
  require_apart(require, d_bias, "d_bias", d_weight, "d_weight");
  const int64_t used = d_weight.defined() ? in.features : 0;  // d_bias needs nothing of x
  if (used * out.features == 0 && !d_bias.defined()) return;
  const DefaultFloatEnv env;  // a sum is added to d_bias outside of the tasks
  with_float_type(dtype, [&](auto type) {
    using T = decltype(type);
    WorkspaceLease lease;
    const Side<T> from{matrix_of<const T>(x), static_cast<size_t>(used)};
    const Side<T> to{matrix_of<const T>(d_y), static_cast<size_t>(out.features)};
    WeightGradient<T>(from, to, in.rows(), lease).run(d_weight, d_bias, accumulate);
  });
}

}  // namespace polyhead
