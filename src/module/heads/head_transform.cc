#include "module/heads/head_transform.h"

#include <algorithm>

#include "base/float_type.h"
#include "base/parallel_tasks.h"
#include "kernels/head_rows.h"
#include "module/heads/rotary.h"

namespace polyhead {
namespace {

// The rows of one token of every batch item; not turned yet.
template <class T>
HeadRows<T> rows_at(const HeadsToTransform& heads, int64_t at, double epsilon) {
  const ConstTensorView &from = heads.from, &to = heads.to;
  HeadRows<T> rows;
  rows.from = static_cast<const T*>(from.data()) + at * from.stride(2);
  rows.batch = static_cast<size_t>(from.size(0));
  rows.heads = static_cast<size_t>(from.size(1));
  rows.head_dim = static_cast<size_t>(from.size(3));
  rows.from_batch = from.stride(0);
  rows.from_head = from.stride(1);
  rows.epsilon = static_cast<T>(epsilon);
  if (heads.norm.defined()) rows.norm = static_cast<const T*>(heads.norm.data());
  if (!to.defined()) return rows;
  rows.to = static_cast<T*>(heads.to.data()) + at * to.stride(2);
  rows.to_batch = to.stride(0);
  rows.to_head = to.stride(1);
  return rows;
}

// Cosines and sines of one position after another, in a task's memory.
template <class T>
class Angles {
 public:
  Angles(const Rope& rope, const std::vector<uint64_t>& steps, std::byte* memory)
      : rope_(rope), steps_(steps), cosine_(reinterpret_cast<T*>(memory)) {}

  void move_to(int64_t position, Turn turn) {
    if (steps_.empty()) return;
    rotary_row(steps_, position, interleaved(), turn, cosine_, cosine_ + rope_.rotary_dim);
  }
  void give_to(HeadRows<T>* rows) const {
    if (steps_.empty()) return;
    rows->cosine = cosine_;
    rows->sine = cosine_ + rope_.rotary_dim;
    rows->rotary_dim = static_cast<size_t>(rope_.rotary_dim);
    rows->interleaved = interleaved();
  }

 private:
  bool interleaved() const { return rope_.pairs == RopePairs::kInterleaved; }

  const Rope& rope_;
  const std::vector<uint64_t>& steps_;
  T* cosine_;
};

// The gradient of a norm's weight over a block: the sum of each position's own, so that no chain of
// additions is long.
template <class T>
class NormSums {
 public:
  NormSums(const TensorView& d_norm, int64_t block, T* own) : own_(own) {
    if (!d_norm.defined()) return;
    dim_ = d_norm.size(1);
    sums_ = static_cast<T*>(d_norm.data()) + block * dim_;
    std::fill_n(sums_, dim_, T{0});
  }
  T* next() {  // where the kernel adds
    std::fill_n(own_, dim_, T{0});
    return own_;
  }
  void add() {
    for (int64_t d = 0; d < dim_; ++d) sums_[d] += own_[d];
  }

 private:
  int64_t dim_ = 0;
  T *own_, *sums_ = nullptr;
};

}  // namespace

HeadTransform::HeadTransform(const AttentionSizes& sizes)
    : dtype_(sizes.dtype), epsilon_(sizes.qk_norm_eps), rope_(sizes.rope) {
  if (sizes.rotates()) steps_ = rotary_steps(rope_);
}

double HeadTransform::flops(const ConstTensorView& heads) const {
  constexpr double kRow = 10, kAngle = 60;  // of a number, of a sine and a cosine
  return kRow * static_cast<double>(heads.numel()) +
         kAngle * static_cast<double>(heads.size(2)) * static_cast<double>(steps_.size());
}

size_t HeadTransform::row_bytes() const {
  return 2 * static_cast<size_t>(rope_.rotary_dim) * dtype_bytes(dtype_);
}

size_t HeadTransform::backward_bytes(int64_t head_dim) const {
  return row_bytes() + static_cast<size_t>(head_dim) * dtype_bytes(dtype_);
}

void HeadTransform::run(const HeadsToTransform& query, const HeadsToTransform& key) const {
  const int64_t q_len = query.from.size(2), kv_len = key.from.size(2);
  // The same angles are made once.
  const bool together = q_len == kv_len && query.position == key.position;
  const int64_t of_query = num_blocks(q_len), of_key = together ? 0 : num_blocks(kv_len);
  with_float_type(dtype_, [&](auto type) {
    using T = decltype(type);
    const HeadRowsKernel<T> kernel = head_rows_kernel<T>(active_isa());
    const auto body = [&](size_t task, std::byte* memory) {
      Angles<T> angles(rope_, steps_, memory);
      const auto transform = [&](const HeadsToTransform& heads, int64_t at) {
        HeadRows<T> rows = rows_at<T>(heads, at, epsilon_);
        angles.give_to(&rows);
        kernel.forward(rows);
      };
      const auto block = static_cast<int64_t>(task);
      const HeadsToTransform& heads = block < of_query ? query : key;
      const int64_t begin = (block < of_query ? block : block - of_query) * kBlock;
      for (int64_t at = begin; at < std::min(heads.from.size(2), begin + kBlock); ++at) {
        angles.move_to(heads.position + at, Turn::kForward);
        transform(heads, at);
        if (together) transform(key, at);
      }
    };
    parallel_tasks(static_cast<size_t>(of_query + of_key), flops(query.from) + flops(key.from),
                   row_bytes(), body);
  });
}

void HeadTransform::run_backward(const HeadsToPullBack& heads) const {
  const TensorView &gradient = heads.gradient, &d_norm = heads.d_norm;
  const int64_t len = gradient.size(2);
  const int64_t dim = gradient.size(3);
  with_float_type(dtype_, [&](auto type) {
    using T = decltype(type);
    const HeadRowsKernel<T> kernel = head_rows_kernel<T>(active_isa());
    const auto body = [&](size_t task, std::byte* memory) {
      Angles<T> angles(rope_, steps_, memory);
      const auto block = static_cast<int64_t>(task);
      NormSums<T> sums(d_norm, block, reinterpret_cast<T*>(memory + row_bytes()));
      for (int64_t at = block * kBlock; at < std::min(len, (block + 1) * kBlock); ++at) {
        angles.move_to(heads.forward.position + at, Turn::kBack);
        HeadRowsBackward<T> rows{.rows = rows_at<T>(heads.forward, at, epsilon_)};
        rows.d_norm = sums.next();
        angles.give_to(&rows.rows);
        rows.gradient = static_cast<T*>(gradient.data()) + at * gradient.stride(2);
        rows.gradient_batch = gradient.stride(0);
        rows.gradient_head = gradient.stride(1);
        kernel.backward(rows);
        sums.add();
      }
    };
    parallel_tasks(static_cast<size_t>(num_blocks(len)), flops(gradient), backward_bytes(dim),
                   body);
  });
}

void HeadTransform::reserve_backward(const ConstTensorView& heads) const {
  reserve_task_memory(static_cast<size_t>(num_blocks(heads.size(2))), flops(heads),
                      backward_bytes(heads.size(3)));
}

}  // namespace polyhead
