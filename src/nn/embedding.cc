// Gradients: row `id` of d_weight is the sum of the rows of d_y that asked for it, in their order.
#include <algorithm>
#include <vector>

#include <polyhead/nn/layers.h>
#include "base/float_env.h"
#include "base/float_type.h"
#include "base/parallel_tasks.h"
#include "nn/checks.h"

namespace polyhead::nn {
namespace {

constexpr size_t kTaskTokens = 64;
// Columns of one task of the backward, which walks over all tokens: two lines of memory at least.
constexpr size_t kTaskColumns = 32;

Tensor normal_rows(int64_t count, int64_t width, Random& random, DType dtype) {
  if (count < 1 || width < 1) {
    Require("Embedding")
        .fail("weight", message("shape would be [", count, ", ", width, "]"), "at least 1 each");
  }
  require_float_type(Require("Embedding"), dtype);
  const DefaultFloatEnv env;
  Tensor weight(dtype, {count, width});
  fill_floats(weight, [&] { return random.normal(); });
  return weight;
}

void check_ids(const Require& require, const ConstTensorView& ids, int64_t count) {
  require_dense(require, ids, "ids");
  require_dtype(require, ids, "ids", DType::kInt64);
  const auto* id = ids.data_as<int64_t>();
  for (int64_t i = 0; i < ids.numel(); ++i) {
    if (id[i] >= 0 && id[i] < count) continue;
    require.fail("ids", message("element ", i, " is ", id[i]), message("in [0, ", count, ")"));
  }
}

std::vector<int64_t> rows_shape(const ConstTensorView& ids, int64_t width) {
  std::vector<int64_t> shape(ids.shape().begin(), ids.shape().end());
  shape.push_back(width);
  return shape;
}

template <class T>
void take_rows(const T* weight, size_t width, const ConstTensorView& ids, T* y) {
  const auto count = static_cast<size_t>(ids.numel());
  const auto* id = ids.data_as<int64_t>();
  const size_t tasks = (count + kTaskTokens - 1) / kTaskTokens;
  parallel_tasks(tasks, static_cast<double>(count * width), 0, [&](size_t task, std::byte*) {
    const size_t end = std::min(count, (task + 1) * kTaskTokens);
    for (size_t i = task * kTaskTokens; i < end; ++i) {
      std::copy_n(weight + static_cast<size_t>(id[i]) * width, width, y + i * width);
    }
  });
}

template <class T>
void add_rows(const T* d_y, size_t width, const ConstTensorView& ids, T* d_weight) {
  const auto count = static_cast<size_t>(ids.numel());
  const auto* id = ids.data_as<int64_t>();
  const size_t tasks = (width + kTaskColumns - 1) / kTaskColumns;
  parallel_tasks(tasks, static_cast<double>(count * width), 0, [&](size_t task, std::byte*) {
    const size_t first = task * kTaskColumns, columns = std::min(kTaskColumns, width - first);
    for (size_t i = 0; i < count; ++i) {
      const T* from = d_y + i * width + first;
      T* to = d_weight + static_cast<size_t>(id[i]) * width + first;
      for (size_t c = 0; c < columns; ++c) to[c] += from[c];
    }
  });
}

}  // namespace

Embedding::Embedding(int64_t count, int64_t width, Random& random, DType dtype)
    : Embedding(normal_rows(count, width, random, dtype)) {}

Embedding::Embedding(const ConstTensorView& weight) : weight_(weight) {
  const Require require("Embedding");
  require_float(require, weight, "weight");
  if (weight.rank() != 2 || weight.numel() == 0) {
    require.fail("weight", "shape is " + weight.shape_string(), "[count, width], at least 1 each");
  }
  d_weight_ = Tensor(weight.dtype(), weight.shape());
}

Tensor Embedding::forward(const ConstTensorView& ids) const {
  Tensor y(weight_.dtype(), rows_shape(ids, weight_.size(1)));
  forward_into(ids, y);
  return y;
}

void Embedding::forward_into(const ConstTensorView& ids, const TensorView& y) const {
  const Require require("Embedding::forward");
  check_ids(require, ids, weight_.size(0));
  require_dense(require, y, "y");
  require_dtype(require, y, "y", weight_.dtype());
  require.shape(y, "y", rows_shape(ids, weight_.size(1)));
  with_float_type(weight_.dtype(), [&](auto type) {
    using T = decltype(type);
    take_rows(weight_.data_as<T>(), static_cast<size_t>(weight_.size(1)), ids, y.data_as<T>());
  });
}

void Embedding::backward(const ConstTensorView& ids, const ConstTensorView& d_y, bool accumulate) {
  const Require require("Embedding::backward");
  check_ids(require, ids, weight_.size(0));
  require_dense(require, d_y, "d_y");
  require_dtype(require, d_y, "d_y", weight_.dtype());
  require.shape(d_y, "d_y", rows_shape(ids, weight_.size(1)));
  with_float_type(weight_.dtype(), [&](auto type) {
    using T = decltype(type);
    T* to = d_weight_.data_as<T>();
    if (!accumulate) std::fill_n(to, d_weight_.numel(), T{0});
    add_rows(d_y.data_as<T>(), static_cast<size_t>(weight_.size(1)), ids, to);
  });
}

ParameterList Embedding::parameters() {
  ParameterList list;
  list.add("weight", weight_, d_weight_);
  return list;
}

}  // namespace polyhead::nn
