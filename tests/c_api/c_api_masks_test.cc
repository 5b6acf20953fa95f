// What a row sees by its position, and what changes its scores: through the C ABI come the bits of
// the C++ API, forward and backward, and each option changes them.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <polyhead/c_api.h>
#include <polyhead/polyhead.h>
#include "module/module_test_tools.h"
#include "testing/compare.h"
#include "tests/c_api/both.h"

namespace polyhead {
namespace {

using oracle::Both;
using oracle::expect_same_bits;
using oracle::ok;
using oracle::random_tensor;
using oracle::sized;

constexpr DType kType = DType::kFloat64;

Tensor integers(std::vector<int32_t> values) {
  Tensor tensor(DType::kInt32, {static_cast<int64_t>(values.size())});
  std::copy(values.begin(), values.end(), tensor.data_as<int32_t>());
  return tensor;
}

struct Results {
  Both out{Tensor(kType, {2, 4, 12, 3})}, lse{Tensor(kType, {2, 4, 12})};
  Both d_query{Tensor(kType, {2, 4, 12, 8})}, d_sinks{Tensor(kType, {4})};

  void expect_same(const Results& other, const std::string& what) const {
    EXPECT_TRUE(expect_same_bits(out.view, other.out.view, what + ": out"));
    EXPECT_TRUE(expect_same_bits(lse.view, other.lse.view, what + ": lse"));
    EXPECT_TRUE(expect_same_bits(d_query.view, other.d_query.view, what + ": d_query"));
    EXPECT_TRUE(expect_same_bits(d_sinks.view, other.d_sinks.view, what + ": d_sinks"));
  }
};

class CApiMasks : public ::testing::Test {
 protected:
  CApiMasks() {
    mask.struct_size = sizeof mask;
    c_options.masks = &mask;
  }

  // Both must have been set to the same.
  void expect_same_bits_in_c(const std::string& what) {
    Results c, cpp, plain;
    run_c(&c);
    run_cpp(options, &cpp);
    c.expect_same(cpp, what);
    run_cpp({}, &plain);
    EXPECT_FALSE(std::equal(plain.out.tensor.data_as<double>(),
                            plain.out.tensor.data_as<double>() + plain.out.view.numel(),
                            c.out.tensor.data_as<double>()))
        << what << " changed nothing";
  }

  polyhead_mask mask{};
  polyhead_attention_options c_options = sized<polyhead_attention_options>();
  AttentionOptions options;
  bool is_packed = false;

 private:
  // The same memory as [2, 4, 12, n], or packed as [1, 4, 24, n].
  ConstTensorView shaped(const ConstTensorView& view) const {
    if (!is_packed) return view;
    std::vector<int64_t> shape(view.shape().begin(), view.shape().end());
    shape[0] = 1;
    shape[2] *= 2;
    return {view.data(), view.dtype(), shape};
  }
  TensorView shaped(const Both& to) const {
    const ConstTensorView view = shaped(to.view);
    return {const_cast<void*>(view.data()), view.dtype(), view.shape()};
  }

  void run_c(Results* to) const {
    const ConstTensorView views[] = {
        shaped(query_.view),  shaped(key_.view),    shaped(value_.view),     shaped(d_out_.view),
        shaped(to->out.view), shaped(to->lse.view), shaped(to->d_query.view)};
    std::vector<polyhead_tensor> c;
    for (const ConstTensorView& view : views) c.push_back(oracle::c_tensor(view));
    auto outputs = sized<polyhead_attention_outputs>();
    outputs.out = &c[4];
    outputs.lse = &c[5];
    ASSERT_STREQ(ok(polyhead_attention_forward(&c_options, c.data(), &c[1], &c[2], &outputs)),
                 "ok");
    auto inputs = sized<polyhead_attention_backward_inputs>();
    inputs.out = &c[4];
    inputs.lse = &c[5];
    inputs.d_out = &c[3];
    auto gradients = sized<polyhead_attention_gradients>();
    gradients.d_query = &c[6];
    if (c_options.sinks != nullptr) gradients.d_sinks = &to->d_sinks.c;
    ASSERT_STREQ(
        ok(polyhead_attention_backward(&c_options, c.data(), &c[1], &c[2], &inputs, &gradients)),
        "ok");
  }

  void run_cpp(const AttentionOptions& given, Results* to) const {
    const ConstTensorView query = shaped(query_.view), key = shaped(key_.view),
                          value = shaped(value_.view);
    attention_forward(query, key, value, given, {.out = shaped(to->out), .lse = shaped(to->lse)});
    AttentionGradients gradients{.d_query = shaped(to->d_query)};
    if (given.sinks.defined()) gradients.d_sinks = to->d_sinks.tensor;
    attention_backward(
        query, key, value, given,
        {.out = shaped(to->out.view), .lse = shaped(to->lse.view), .d_out = shaped(d_out_.view)},
        gradients);
  }

  Both query_{random_tensor(kType, {2, 4, 12, 8}, 1)}, key_{random_tensor(kType, {2, 2, 16, 8}, 2)};
  Both value_{random_tensor(kType, {2, 2, 16, 3}, 3)};
  Both d_out_{random_tensor(kType, {2, 4, 12, 3}, 4)};
};

TEST_F(CApiMasks, QueryOffset) {
  mask.kind = POLYHEAD_MASK_CAUSAL;
  mask.query_offset = 3;
  c_options.num_masks = 1;
  options.masks = {Mask::causal(3)};
  expect_same_bits_in_c("causal from 3");
}

TEST_F(CApiMasks, Windows) {
  mask.kind = POLYHEAD_MASK_WINDOW;
  mask.left = 2;
  mask.right = 1;
  mask.query_offset = -1;
  c_options.num_masks = 1;
  options.masks = {Mask::window(2, 1, -1)};
  expect_same_bits_in_c("a window");
  mask.left = POLYHEAD_UNBOUNDED;
  mask.query_offset = 0;
  mask.causal_align = POLYHEAD_BOTTOM_RIGHT;
  options.masks = {Mask::window(Mask::kUnbounded, 1, CausalAlign::kBottomRight)};
  expect_same_bits_in_c("a window on one side");
  mask.left = 0;
  mask.right = POLYHEAD_UNBOUNDED;
  options.masks = {Mask::window(0, Mask::kUnbounded, CausalAlign::kBottomRight)};
  expect_same_bits_in_c("a window on the other side");
}

TEST_F(CApiMasks, KeyLengths) {
  const Both lengths{integers({5, 16})};
  mask.kind = POLYHEAD_MASK_KEY_LENGTHS;
  mask.tensor = &lengths.c;
  c_options.num_masks = 1;
  options.masks = {Mask::key_lengths(lengths.view)};
  expect_same_bits_in_c("key lengths");
}

TEST_F(CApiMasks, Alibi) {
  const Both slopes{random_tensor(kType, {4}, 5)};
  mask.kind = POLYHEAD_MASK_ALIBI;
  mask.tensor = &slopes.c;
  mask.query_offset = 2;
  c_options.num_masks = 1;
  options.masks = {Mask::alibi(slopes.view, 2)};
  expect_same_bits_in_c("ALiBi");
}

TEST_F(CApiMasks, Segments) {
  const Both query_ids{integers({1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 7, 7})};
  const Both key_ids{integers({1, 1, 1, 1, 2, 2, 2, 2, 7, 7, 2, 1, 2, 2, 7, 1})};
  mask.kind = POLYHEAD_MASK_SEGMENTS;
  mask.tensor = &query_ids.c;
  mask.key_ids = &key_ids.c;
  c_options.num_masks = 1;
  options.masks = {Mask::segments(query_ids.view, key_ids.view)};
  expect_same_bits_in_c("segments");
}

TEST_F(CApiMasks, SoftcapAndSinks) {
  c_options.softcap = options.softcap = 0.5;
  expect_same_bits_in_c("softcap");
  const Both sinks{random_tensor(kType, {4}, 6)};
  c_options.sinks = &sinks.c;
  options.sinks = sinks.view;
  expect_same_bits_in_c("sinks");
}

TEST_F(CApiMasks, PackedBatches) {
  is_packed = true;
  const Both queries{integers({0, 7, 7, 24})}, keys{integers({0, 2, 12, 32})};
  c_options.cu_seqlens_q = &queries.c;
  c_options.cu_seqlens_k = &keys.c;
  options.cu_seqlens_q = queries.view;
  options.cu_seqlens_k = keys.view;
  expect_same_bits_in_c("a packed batch");
}

TEST_F(CApiMasks, RefusalsSayWhichMask) {
  const Both x{random_tensor(kType, {1, 1, 3, 4}, 1)}, out{Tensor(kType, {1, 1, 3, 4})};
  auto outputs = sized<polyhead_attention_outputs>();
  outputs.out = &out.c;
  polyhead_mask masks[] = {mask, mask};
  masks[0].kind = POLYHEAD_MASK_CAUSAL;
  masks[1].kind = 77;
  c_options.masks = masks;
  c_options.num_masks = 2;
  const auto refusal = [&] {
    return std::string(ok(polyhead_attention_forward(&c_options, &x.c, &x.c, &x.c, &outputs)));
  };
  EXPECT_NE(refusal().find("masks[1].kind: "), std::string::npos) << refusal();
  masks[1].kind = POLYHEAD_MASK_BOOLEAN;
  EXPECT_NE(refusal().find("masks[1].tensor: "), std::string::npos) << refusal();
}

// score + factor * score^2, but nothing of the keys from `end` on.
struct Square {
  double factor;
  int64_t end;
};

template <class Use>
void for_each(const polyhead_score_block* block, const Use& use) {
  for (int64_t i = 0; i < block->num_queries; ++i) {
    for (int64_t j = 0; j < block->num_keys; ++j) {
      use(i * block->query_stride + j * block->key_stride, block->first_key + j);
    }
  }
}

extern "C" void square_forward(const polyhead_score_block* block, void* context) {
  const auto& own = *static_cast<const Square*>(context);
  auto* scores = static_cast<double*>(block->scores);
  for_each(block, [&](int64_t at, int64_t key) {
    const double s = scores[at];
    scores[at] =
        key < own.end ? s + own.factor * s * s + static_cast<double>(block->head) : -HUGE_VAL;
  });
}

extern "C" void square_backward(const polyhead_score_block* block,
                                const polyhead_score_block* d_block, void* context) {
  const auto& own = *static_cast<const Square*>(context);
  const auto* scores = static_cast<const double*>(block->scores);
  auto* d_scores = static_cast<double*>(d_block->scores);
  for_each(d_block, [&](int64_t at, int64_t) { d_scores[at] *= 1 + 2 * own.factor * scores[at]; });
}

extern "C" int32_t square_is_empty(const polyhead_score_block* block, void* context) {
  return block->first_key >= static_cast<const Square*>(context)->end ? 1 : 0;
}

// The same for C++.
struct SquareOne {
  Square own;
  double operator()(double s, int, int head, int, int key) const {
    return key < own.end ? s + own.factor * s * s + static_cast<double>(head) : -HUGE_VAL;
  }
  double derivative(double s, int, int, int, int) const { return 1 + 2 * own.factor * s; }
  bool is_empty(const ScoreBlock& block) const { return block.first_key >= own.end; }
};

TEST_F(CApiMasks, ScoreMod) {
  Square square{0.25, 9};
  auto mod = sized<polyhead_score_mod>();
  mod.forward = square_forward;
  mod.backward = square_backward;
  mod.is_empty = square_is_empty;
  mod.context = &square;
  c_options.score_mod = &mod;
  const SquareOne one{square};
  options.score_mod = per_score(one);
  expect_same_bits_in_c("score_mod");
}

}  // namespace
}  // namespace polyhead
