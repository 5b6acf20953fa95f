#include "attention/dropout.h"

#include <array>
#include <cmath>

#include <polyhead/attention.h>
#include <polyhead/error.h>
#include "base/float_env.h"
#include "base/message.h"
#include "base/philox.h"

namespace polyhead {
namespace {

constexpr int64_t kGranule = 8;  // keys that share a counter
constexpr uint32_t kOne = 1U << 16;

// The bits of the keys [8 * granule, 8 * granule + 8).
std::array<uint32_t, kGranule> draw_granule(const Dropout& dropout, int64_t head, int64_t query,
                                            int64_t granule) {
  const std::array<uint32_t, 4> words =
      philox({dropout.call, static_cast<uint32_t>(head), static_cast<uint32_t>(query),
              static_cast<uint32_t>(granule)},
             dropout.seed);
  std::array<uint32_t, kGranule> draws;
  for (size_t k = 0; k < draws.size(); ++k) draws[k] = words[k / 2] >> (16 * (k % 2)) & 0xffff;
  return draws;
}

}  // namespace

uint32_t Dropout::threshold() const { return static_cast<uint32_t>(std::lround(p * kOne)); }

double Dropout::scale() const {
  return threshold() == kOne ? 0 : double{kOne} / static_cast<double>(kOne - threshold());
}

bool Dropout::keeps(int64_t head, int64_t query, int64_t key) const {
  if (threshold() == 0) return true;
  const auto draws = draw_granule(*this, head, query, key / kGranule);
  return draws[static_cast<size_t>(key % kGranule)] >= threshold();
}

void validate_dropout(const Dropout& dropout, Shape shape, const char* function) {
  if (!(dropout.p >= 0 && dropout.p <= 1)) {
    throw InvalidArgument(
        message(function, ": dropout_p: got ", dropout.p, "; must be between 0 and 1"));
  }
  constexpr int64_t kWords = int64_t{1} << 32;
  const int64_t batch = shape[0], heads = shape[1];
  const bool has_room = (heads == 0 || batch <= kWords / heads) && shape[2] <= kWords &&
                        shape[3] <= kFirstAppendedKey;
  if (dropout.p > 0 && !has_room) {
    throw InvalidArgument(
        message(function, ": dropout_p: got ", dropout.p, " with ", batch, " x ", heads, " heads, ",
                shape[2], " queries and ", shape[3],
                " keys; must be 0 beyond 2^32 heads or queries, or 2^35 - 8 keys"));
  }
}

void attention_dropout_mask(const AttentionOptions& options, const TensorView& keep) {
  static constexpr const char* kFunction = "attention_dropout_mask";
  if (!keep.defined() || keep.rank() != 4 || keep.dtype() != DType::kBool) {
    throw InvalidArgument(message(
        kFunction, ": keep: ",
        keep.defined() ? message(dtype_name(keep.dtype()), " ", keep.shape_string()) : "not given",
        "; must be bool [B, H, L, S]"));
  }
  DefaultFloatEnv env;
  const Dropout dropout{options.dropout_p, options.seed, options.dropout_call};
  validate_dropout(dropout, keep.shape(), kFunction);
  const int64_t heads = keep.size(1), q_len = keep.size(2), kv_len = keep.size(3);
  for (int64_t n = 0; n < keep.size(0) * heads * q_len; ++n) {
    const int64_t b = n / (heads * q_len), h = n / q_len % heads, i = n % q_len;
    bool* row = keep.data_as<bool>() + b * keep.stride(0) + h * keep.stride(1) + i * keep.stride(2);
    for (int64_t j = 0; j < kv_len; ++j) {
      row[j * keep.stride(3)] = dropout.keeps(b * heads + h, i, j);
    }
  }
}

}  // namespace polyhead
