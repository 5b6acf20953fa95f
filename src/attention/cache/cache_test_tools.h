// A cache beside the same sequences in tensors: what the one gives, the other must give, bit for
// bit.
#pragma once

#include <algorithm>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <polyhead/kv_cache.h>
#include "testing/attention_case.h"
#include "testing/compare.h"
#include "testing/elements.h"
#include "testing/machine.h"

namespace polyhead::oracle {

// Pages of `page_len` for `positions` in each sequence.
inline KvCache::Config config_of(const AttentionCase& spec, int64_t page_len, int64_t positions) {
  return {.batch = spec.batch,
          .num_kv_heads = spec.kv_heads,
          .head_dim = spec.head_dim,
          .v_head_dim = spec.v_head_dim,
          .dtype = spec.dtype,
          .page_len = page_len,
          .num_pages = spec.batch * ((positions + page_len - 1) / page_len)};
}

// Rows [first[b], first[b] + count[b]) of each item of [B, H, S, D], NaN behind them.
inline Tensor rows_of(const ConstTensorView& from, const std::vector<int64_t>& first,
                      const std::vector<int64_t>& counts) {
  const int64_t most = *std::max_element(counts.begin(), counts.end());
  Tensor rows(from.dtype(), {from.size(0), from.size(1), most, from.size(3)});
  fill_with(rows, [&](const Index& at) {
    const auto b = static_cast<size_t>(at[0]);
    if (at[2] >= counts[b]) return std::numeric_limits<double>::quiet_NaN();
    return read(from, {at[0], at[1], first[b] + at[2], at[3]});
  });
  return rows;
}

class CacheBesideTensors {
 public:
  // Positions are the rows of the problem's query, key and value: q_len and kv_len are `most`.
  CacheBesideTensors(AttentionCase spec, int64_t most, const KvCache::Config& config)
      : problem(with_lengths(spec, most)),
        cache(config),
        lengths(static_cast<size_t>(spec.batch)) {}

  void append(const std::vector<int64_t>& counts) {
    const Tensor key = rows_of(problem.key.view(), lengths, counts);
    const Tensor value = rows_of(problem.value.view(), lengths, counts);
    cache.append(key, value, {counts.data(), {static_cast<int64_t>(counts.size())}});
    for (size_t b = 0; b < lengths.size(); ++b) lengths[b] += counts[b];
  }
  void append(int64_t count) { append(std::vector<int64_t>(lengths.size(), count)); }

  // The last q_lens[b] positions of each sequence as queries, from the cache and from tensors.
  // Masks of `options` compare positions.
  void expect_as_tensors(const std::vector<int64_t>& q_lens, const AttentionOptions& options,
                         const std::string& what) const {
    const std::vector<int64_t> bounds = sums(q_lens);
    const AttentionCase& spec = problem.spec;
    Tensor query(spec.dtype, {1, spec.heads, bounds.back(), spec.head_dim});
    GuardedTensor out(spec.dtype, {1, spec.heads, bounds.back(), spec.v_head_dim}),
        lse(spec.dtype, {1, spec.heads, bounds.back()});
    for (size_t b = 0; b < q_lens.size(); ++b) {
      const TensorView part = query.view().narrow(2, bounds[b], q_lens[b]);
      const ConstTensorView rows = queries(b, q_lens[b]);
      fill_with(part, [&](const Index& at) { return read(rows, at); });
    }
    AttentionOptions packed = options;
    packed.cu_seqlens_q = {bounds.data(), {static_cast<int64_t>(bounds.size())}};
    attention_forward(query, cache, packed, {.out = out.view(), .lse = lse.view()});
    EXPECT_TRUE(out.intact() && lse.intact()) << what;
    for (size_t b = 0; b < q_lens.size(); ++b) {
      const std::string which = what + ", sequence " + std::to_string(b);
      expect_alone(b, options, out.view().narrow(2, bounds[b], q_lens[b]),
                   lse.view().narrow(2, bounds[b], q_lens[b]), which);
    }
  }
  // The same number for each, as a batch.
  void expect_as_tensors(int64_t q_len, const AttentionOptions& options,
                         const std::string& what) const {
    const AttentionCase& spec = problem.spec;
    const std::vector<int64_t> counts(lengths.size(), q_len);
    std::vector<int64_t> first = lengths;
    for (int64_t& n : first) n -= q_len;
    const Tensor query = rows_of(problem.query.view(), first, counts);
    GuardedTensor out(spec.dtype, {spec.batch, spec.heads, q_len, spec.v_head_dim}, spec.storage),
        lse(spec.dtype, {spec.batch, spec.heads, q_len}, spec.storage);
    attention_forward(query, cache, options, {.out = out.view(), .lse = lse.view()});
    EXPECT_TRUE(out.intact() && lse.intact()) << what;
    for (size_t b = 0; b < lengths.size(); ++b) {
      expect_alone(b, options, out.view().narrow(0, static_cast<int64_t>(b), 1),
                   lse.view().narrow(0, static_cast<int64_t>(b), 1),
                   what + ", sequence " + std::to_string(b));
    }
  }

  AttentionProblem problem;
  KvCache cache;
  std::vector<int64_t> lengths;

 private:
  static AttentionCase with_lengths(AttentionCase spec, int64_t most) {
    spec.q_len = spec.kv_len = most;
    return spec;
  }
  static std::vector<int64_t> sums(const std::vector<int64_t>& counts) {
    std::vector<int64_t> bounds(counts.size() + 1);
    std::partial_sum(counts.begin(), counts.end(), bounds.begin() + 1);
    return bounds;
  }
  ConstTensorView queries(size_t b, int64_t q_len) const {
    return problem.query.view()
        .narrow(0, static_cast<int64_t>(b), 1)
        .narrow(2, lengths[b] - q_len, q_len);
  }

  void expect_alone(size_t b, const AttentionOptions& options, const ConstTensorView& out,
                    const ConstTensorView& lse, const std::string& what) const {
    const auto item = [&](const GuardedTensor& of) {
      return of.view().narrow(0, static_cast<int64_t>(b), 1).narrow(2, 0, lengths[b]);
    };
    AttentionOptions alone = options;
    alone.masks.clear();
    for (const Mask& mask : options.masks) alone.masks.push_back(at_the_end(mask));
    if (const int64_t window = cache.config().window; window > 0) {
      alone.masks.push_back(Mask::window(window - 1, Mask::kUnbounded, CausalAlign::kBottomRight));
    }
    Tensor want(out.dtype(), out.shape()), want_lse(lse.dtype(), lse.shape());
    const Threads one(1);
    attention_forward(queries(b, out.size(2)), item(problem.key), item(problem.value), alone,
                      {.out = want, .lse = want_lse});
    expect_same_bits(out, want, "out: " + what);
    expect_same_bits(lse, want_lse, "lse: " + what);
  }

  static Mask at_the_end(const Mask& mask) {
    constexpr auto kEnd = CausalAlign::kBottomRight;
    if (mask.offset().is_number()) return mask;
    if (mask.kind() == Mask::Kind::kCausal) return Mask::causal(kEnd);
    if (mask.kind() == Mask::Kind::kAlibi) return Mask::alibi(mask.tensor(), kEnd);
    return mask.kind() == Mask::Kind::kWindow ? Mask::window(mask.left(), mask.right(), kEnd)
                                              : mask;
  }
};

}  // namespace polyhead::oracle
