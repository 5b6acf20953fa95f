// A module that decodes over a cache beside one that gets the whole sequences at once: each row of
// the one must have the bits of the other's.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <polyhead/multihead_attention.h>
#include "base/message.h"
#include "module/module_test_tools.h"
#include "testing/compare.h"
#include "testing/elements.h"
#include "testing/guarded.h"

namespace polyhead::oracle {

class DecoderBesideOnePass {
 public:
  // Sequences of up to `most` tokens.
  DecoderBesideOnePass(const MultiheadAttention::Config& config, const KvCache::Config& cached,
                       int64_t most)
      : module(random_mha(config)),
        cache(cached),
        lengths(static_cast<size_t>(cached.batch)),
        tokens_(random_tensor(config.dtype, {cached.batch, most, config.embed_dim}, 1)),
        wanted_(config.dtype, {cached.batch, most, config.embed_dim}) {
    ForwardOptions options{.is_causal = true};
    Tensor beyond(DType::kBool, {most, most});
    if (cached.window > 0) {
      for (int64_t i = 0; i < most * most; ++i) {
        beyond.data_as<bool>()[i] = i % most <= i / most - cached.window;
      }
      options.attn_mask = beyond.view();
    }
    const TensorView x = in_layout(tokens_.view());
    module.forward_into(x, x, x, options, in_layout(wanted_.view()));
  }

  int64_t batch() const { return cache.config().batch; }

  // The next counts[b] tokens of each sequence; others of the tensor are NaN.
  void step(const std::vector<int64_t>& counts, const std::string& what) {
    const int64_t most = *std::max_element(counts.begin(), counts.end());
    const bool alike = std::count(counts.begin(), counts.end(), most) == batch();
    Tensor x = tensor(most), out = tensor(most);
    fill(out, 77);
    fill(x, std::numeric_limits<double>::quiet_NaN());
    for (int64_t b = 0; b < batch(); ++b) {
      copy(next(tokens_, b, count_of(counts, b)), item(x, b).narrow(0, 0, count_of(counts, b)));
    }
    CachedForwardOptions options;
    if (!alike) options.lengths = {counts.data(), {batch()}};
    module.forward_cached_into(x, &cache, options, out);
    for (int64_t b = 0; b < batch(); ++b) {
      const int64_t count = count_of(counts, b);
      const TensorView got = item(out, b);
      expect(got.narrow(0, 0, count), b, message(what, ", sequence ", b));
      const Tensor zeros(x.dtype(), {most - count, module.config().embed_dim});
      expect_same_bits(got.narrow(0, count, most - count), zeros, what + ": missing tokens");
    }
  }
  void step(int64_t count, const std::string& what) {
    step(std::vector<int64_t>(lengths.size(), count), what);
  }

  // Of one sequence, unbatched.
  void step_alone(int64_t b, int64_t count, const std::string& what) {
    const Tensor out =
        module.forward_cached(next(tokens_, b, count), &cache, {.lengths = {}, .sequence = b});
    expect(out, b, message(what, ", sequence ", b, " alone"));
  }

  void cut(int64_t b, int64_t length) {
    cache.truncate(b, length);
    lengths[static_cast<size_t>(b)] = length;
  }

  MultiheadAttention module;
  KvCache cache;
  std::vector<int64_t> lengths;

 private:
  bool sequence_first() const { return module.config().layout == Layout::kSequenceFirst; }
  TensorView in_layout(const TensorView& batch_first) const {
    return sequence_first() ? batch_first.transposed(0, 1) : batch_first;
  }
  Tensor tensor(int64_t len) const {
    const auto& [embed_dim, dtype] = std::pair(module.config().embed_dim, module.config().dtype);
    return sequence_first() ? Tensor(dtype, {len, batch(), embed_dim})
                            : Tensor(dtype, {batch(), len, embed_dim});
  }
  TensorView item(Tensor& of, int64_t b) const {
    return of.view().select(sequence_first() ? 1 : 0, b);
  }
  static int64_t count_of(const std::vector<int64_t>& counts, int64_t b) {
    return counts[static_cast<size_t>(b)];
  }
  // The tokens that come next in a sequence: [count, embed_dim].
  ConstTensorView next(const Tensor& of, int64_t b, int64_t count) const {
    return of.view().select(0, b).narrow(0, lengths[static_cast<size_t>(b)], count);
  }
  static void copy(const ConstTensorView& from, const TensorView& to) {
    fill_with(to, [&](const Index& at) { return read(from, at); });
  }

  // What came out for the next tokens of a sequence, which have been taken with it.
  void expect(const ConstTensorView& got, int64_t b, const std::string& what) {
    expect_same_bits(got, next(wanted_, b, got.size(0)), what);
    lengths[static_cast<size_t>(b)] += got.size(0);
    EXPECT_EQ(cache.length(b), lengths[static_cast<size_t>(b)]) << what;
  }

  Tensor tokens_, wanted_;  // [B, most, E]
};

}  // namespace polyhead::oracle
