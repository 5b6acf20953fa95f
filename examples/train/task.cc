#include "task.h"

#include <algorithm>
#include <numeric>
#include <span>
#include <utility>

namespace train {
namespace {

using polyhead::DType;
using polyhead::nn::Random;

// From a quarter of the row, so that there is something to predict, to half of it.
Repeat draw_repeat(int64_t length, Random* random) {
  const int64_t shortest = length / 4, longest = length / 2;
  const int64_t period = shortest + random->below(longest - shortest + 1);
  return {.begin = length - 2 * period, .period = period};
}

void draw_row(const Task& task, const Repeat& repeat, std::span<int64_t> row, Random* random) {
  std::vector<int64_t> unused(static_cast<size_t>(task.vocabulary));
  std::iota(unused.begin(), unused.end(), 0);
  const auto different = static_cast<size_t>(repeat.begin + repeat.period);
  for (size_t i = 0; i < different; ++i) {
    const auto pick =
        i + static_cast<size_t>(random->below(static_cast<int64_t>(unused.size() - i)));
    std::swap(unused[i], unused[pick]);
    row[i] = unused[i];
  }
  std::copy_n(row.begin() + repeat.begin, repeat.period,
              row.begin() + repeat.begin + repeat.period);
}

}  // namespace

Batch draw_batch(const Task& task, int64_t rows, Random* random) {
  Batch batch{.tokens = polyhead::Tensor(DType::kInt64, {rows, task.length}),
              .targets = polyhead::Tensor(DType::kInt64, {rows, task.length}),
              .repeats = {}};
  std::fill_n(batch.targets.data_as<int64_t>(), batch.targets.numel(), kNoTarget);
  for (int64_t r = 0; r < rows; ++r) {
    const Repeat repeat = draw_repeat(task.length, random);
    int64_t* row = batch.tokens.data_as<int64_t>() + r * task.length;
    int64_t* target = batch.targets.data_as<int64_t>() + r * task.length;
    draw_row(task, repeat, {row, static_cast<size_t>(task.length)}, random);
    const int64_t second = repeat.begin + repeat.period;
    std::copy(row + second + 1, row + task.length, target + second);
    batch.repeats.push_back(repeat);
  }
  return batch;
}

}  // namespace train
