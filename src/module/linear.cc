#include <polyhead/linear.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <utility>

#include "base/workspace.h"
#include "module/linear_product.h"

namespace polyhead {
namespace {

// weight [n, k] -> packed [panels, k, kPanel]
template <class T>
void pack(const Matrix<const T>& weight, size_t n, size_t k, std::byte* packed) {
  PackBlock<T> whole{.weight = weight, .n = n, .k = k};
  whole.packed = reinterpret_cast<T*>(packed);
  whole.packed_rows = k;
  const size_t panels = num_panels(n, kPanel<T>);
  const auto bytes = static_cast<double>(panel_bytes<T>(n, k));
  const GemmKernel<T> kernel = gemm_kernel<T>(active_isa());
  parallel_tasks(panels, bytes * kPackFlopsPerByte, 0, [&](size_t panel, std::byte*) {
    PackBlock<T> block = whole;
    block.panel_begin = panel;
    block.panel_end = panel + 1;
    kernel.pack(block);
  });
}

// bias -> [count], zeros where there is none.
template <class T>
void pad_bias(const ConstTensorView& bias, size_t count, std::byte* to) {
  T* row = reinterpret_cast<T*>(to);
  std::fill_n(row, count, T{0});
  for (int64_t i = 0; bias.defined() && i < bias.size(0); ++i) {
    row[i] = bias.data_as<T>()[i * bias.stride(0)];
  }
}

void check_parameters(const Require& require, const ConstTensorView& weight,
                      const ConstTensorView& bias) {
  require.given(weight, "weight");
  if (weight.rank() != 2) {
    require.fail("weight", "shape is " + weight.shape_string(), "[out_features, in_features]");
  }
  if (weight.dtype() != DType::kFloat32 && weight.dtype() != DType::kFloat64) {
    require.fail("weight", message("dtype is ", dtype_name(weight.dtype())), "float32 or float64");
  }
  if (!bias.defined()) return;
  const int64_t need[] = {weight.size(0)};
  require.shape(bias, "bias", need, "out_features");
  if (bias.dtype() != weight.dtype()) {
    require.fail("bias", message("dtype is ", dtype_name(bias.dtype())),
                 message("the weight's ", dtype_name(weight.dtype())));
  }
}

}  // namespace

struct PackedLinear::Impl {
  size_t in_features, out_features;
  DType dtype;
  AlignedBytes packed;  // [panels of out_features, in_features, kPanel]
  AlignedBytes bias;    // [panels * kPanel]
  // [panels of in_features, out_features, kPanel]: the weight for input_gradient, null until the
  // first one. Made without a lock: a lent thread that waits for others may run another call.
  mutable std::atomic<std::byte*> transposed{nullptr};

  explicit Impl(const ConstTensorView& weight)
      : in_features(static_cast<size_t>(weight.size(1))),
        out_features(static_cast<size_t>(weight.size(0))),
        dtype(weight.dtype()) {
    with_float_type(dtype, [&](auto type) {
      using T = decltype(type);
      packed = allocate_aligned(panel_bytes<T>(out_features, in_features));
      bias = allocate_aligned(panel_bytes<T>(out_features, 1));
    });
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() { AlignedDelete()(transposed.load(std::memory_order_relaxed)); }

  bool fits(const ConstTensorView& weight) const {
    return static_cast<size_t>(weight.size(0)) == out_features &&
           static_cast<size_t>(weight.size(1)) == in_features && weight.dtype() == dtype;
  }

  void fill(const ConstTensorView& weight, const ConstTensorView& given_bias) {
    with_float_type(dtype, [&](auto type) {
      using T = decltype(type);
      const auto matrix = matrix_of<const T>(weight);
      pack<T>(matrix, out_features, in_features, packed.get());
      pad_bias<T>(given_bias, padded<T>(out_features), bias.get());
      std::byte* second = transposed.load(std::memory_order_relaxed);
      if (second) pack<T>(matrix.transposed(), in_features, out_features, second);
    });
  }

  // Of the packed copy, for the weight itself may be gone.
  template <class T>
  const T* packed_transposed() const {
    std::byte* made = transposed.load(std::memory_order_acquire);
    if (made == nullptr) {
      constexpr auto kStep = static_cast<ptrdiff_t>(kPanel<T>);
      const Axis rows{std::max<size_t>(in_features, 1), 0, kStep};
      const Axis columns{kPanel<T>, kStep * static_cast<ptrdiff_t>(in_features), 1};
      const Matrix<const T> weight{reinterpret_cast<const T*>(packed.get()), rows, columns};
      AlignedBytes memory = allocate_aligned(panel_bytes<T>(in_features, out_features));
      pack<T>(weight, in_features, out_features, memory.get());
      if (transposed.compare_exchange_strong(made, memory.get())) made = memory.release();
    }
    return reinterpret_cast<const T*>(made);
  }
};

PackedLinear::PackedLinear() = default;
PackedLinear::PackedLinear(PackedLinear&&) noexcept = default;
PackedLinear& PackedLinear::operator=(PackedLinear&&) noexcept = default;
PackedLinear::~PackedLinear() = default;

PackedLinear::PackedLinear(const ConstTensorView& weight, const ConstTensorView& bias) {
  assign(weight, bias);
}

void PackedLinear::assign(const ConstTensorView& weight, const ConstTensorView& bias) {
  check_parameters(Require("PackedLinear::assign"), weight, bias);
  if (impl_ && impl_->fits(weight)) return impl_->fill(weight, bias);
  auto impl = std::make_unique<Impl>(weight);
  impl->fill(weight, bias);
  impl_ = std::move(impl);
}

int64_t PackedLinear::in_features() const {
  return impl_ ? static_cast<int64_t>(impl_->in_features) : 0;
}
int64_t PackedLinear::out_features() const {
  return impl_ ? static_cast<int64_t>(impl_->out_features) : 0;
}
DType PackedLinear::dtype() const { return impl_ ? impl_->dtype : DType::kFloat32; }

namespace {

void require_columns(const Require& require, const char* name, const LinearOperand& operand,
                     int64_t first, int64_t out_features) {
  if (first >= 0 && first <= out_features && operand.features <= out_features - first) return;
  require.fail(name, message("has ", operand.features, " features, first is ", first),
               message("within the ", out_features, " of the weight"));
}

}  // namespace

void PackedLinear::run(const ConstTensorView& x, const TensorView& out, int64_t first) const {
  const Require require("PackedLinear::run");
  const LinearOperand in(require, x, "x", dtype()), to(require, out, "out", dtype());
  in.require_features(in_features(), require, "x");
  require_columns(require, "out", to, first, out_features());
  to.require_rows_of(in, require, "out", "x");
  require_apart(require, out, "out", x, "x");
  if (out.numel() == 0) return;
  with_float_type(dtype(), [&](auto type) {
    using T = decltype(type);
    GemmBlock<T> block{.a = matrix_of<const T>(x), .out = matrix_of<T>(out)};
    block.packed = reinterpret_cast<const T*>(impl_->packed.get());
    block.bias = reinterpret_cast<const T*>(impl_->bias.get());
    block.k = block.packed_rows = static_cast<size_t>(in.features);
    block.first = static_cast<size_t>(first);
    block.last = static_cast<size_t>(first + to.features);
    run_product(block, in.rows());
  });
}

void PackedLinear::input_gradient(const ConstTensorView& d_y, const TensorView& d_x,
                                  int64_t first) const {
  const Require require("PackedLinear::input_gradient");
  const LinearOperand from(require, d_y, "d_y", dtype()), to(require, d_x, "d_x", dtype());
  require_columns(require, "d_y", from, first, out_features());
  to.require_features(in_features(), require, "d_x");
  to.require_rows_of(from, require, "d_x", "d_y");
  require_apart(require, d_x, "d_x", d_y, "d_y");
  if (d_x.numel() == 0) return;
  with_float_type(dtype(), [&](auto type) {
    using T = decltype(type);
    GemmBlock<T> block{.a = matrix_of<const T>(d_y), .out = matrix_of<T>(d_x)};
    block.packed = impl_->packed_transposed<T>() + static_cast<size_t>(first) * kPanel<T>;
    block.packed_rows = static_cast<size_t>(out_features());
    block.k = static_cast<size_t>(from.features);
    block.last = static_cast<size_t>(to.features);
    run_product(block, from.rows());
  });
}

void PackedLinear::prepare_input_gradient() const {
  with_float_type(dtype(), [&](auto type) { impl_->packed_transposed<decltype(type)>(); });
}

}  // namespace polyhead
