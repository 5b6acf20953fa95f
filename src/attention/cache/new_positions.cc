#include "attention/cache/new_positions.h"

#include <algorithm>
#include <numeric>

#include "attention/attention_call.h"

namespace polyhead {

void NewPositions::count_all(int64_t most, const ConstTensorView& lengths,
                             const AppendNames& names) {
  packed_ = false;
  std::fill(counts_.begin(), counts_.end(), most);
  if (!lengths.defined()) return;
  const auto batch = static_cast<int64_t>(counts_.size());
  if (lengths.rank() != 1 || lengths.size(0) != batch) {
    refuse_cache(names.function, "lengths", "shape is " + lengths.shape_string(),
                 message("[", batch, "]"));
  }
  if (lengths.dtype() != DType::kInt32 && lengths.dtype() != DType::kInt64) {
    refuse_cache(names.function, "lengths", message("dtype is ", dtype_name(lengths.dtype())),
                 "int32 or int64");
  }
  for (int64_t n = 0; n < batch; ++n) {
    const int64_t count = integer_at(lengths, n);
    if (count < 0 || count > most) {
      refuse_cache(names.function, message("lengths[", n, "]"), message("got ", count),
                   message("between 0 and ", names.argument, "'s ", most));
    }
    counts_[static_cast<size_t>(n)] = count;
  }
}

void NewPositions::count_one(int64_t sequence, int64_t count) {
  packed_ = false;
  std::fill(counts_.begin(), counts_.end(), 0);
  counts_[static_cast<size_t>(sequence)] = count;
}

void NewPositions::pack() {
  packed_ = true;
  std::partial_sum(counts_.begin(), counts_.end(), bounds_.begin() + 1);
}

}  // namespace polyhead
