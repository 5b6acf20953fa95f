// The library on the test vectors of docs/canonical_order.md: the digests of the table, on every
// instruction set with fused multiply-add. POLYHEAD_CANONICAL_VECTORS names another table.
#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <polyhead/linear.h>
#include <polyhead/runtime.h>
#include "attention/attention_backward.h"
#include "attention/attention_call.h"
#include "inputs.h"
#include "module/heads/head_transform.h"
#include "module/training/gradient_views.h"
#include "testing/machine.h"

namespace polyhead {
namespace {

using canonical::Digests;
using canonical::Inputs;
using canonical::MaskInput;
using canonical::Vector;

using Sizes = std::vector<int64_t>;

Sizes shape(std::initializer_list<size_t> sizes) {
  Sizes result;
  for (const size_t size : sizes) result.push_back(static_cast<int64_t>(size));
  return result;
}

template <class T>
Tensor tensor(const std::vector<T>& numbers, std::initializer_list<size_t> sizes) {
  return Tensor(ConstTensorView(numbers.data(), dtype_of<T>(), shape(sizes)));
}

template <class T>
Tensor numbers_as(const std::vector<double>& numbers, DType dtype, const Sizes& sizes) {
  Tensor result(dtype, sizes);
  auto* to = static_cast<T*>(result.data());
  std::transform(numbers.begin(), numbers.end(), to, [](double x) { return static_cast<T>(x); });
  return result;
}

Tensor mask_tensor(const Vector& v, const MaskInput& mask) {
  const Sizes all = shape({v.q_len, v.kv_len});
  switch (mask.kind) {
    case 'f':
      return numbers_as<float>(mask.numbers, DType::kFloat32, all);
    case 'd':
      return numbers_as<double>(mask.numbers, DType::kFloat64, all);
    case 'i':
      return numbers_as<int32_t>(mask.numbers, DType::kInt32, all);
    case 'k':
      return numbers_as<uint8_t>(mask.numbers, DType::kBool, shape({v.batch, 1, 1, v.kv_len}));
    case 'a':
      return numbers_as<double>(mask.numbers, DType::kFloat64, shape({v.heads}));
    case 'l':
      return numbers_as<int64_t>(mask.numbers, DType::kInt64, shape({v.batch}));
    case 'g':
      return numbers_as<float>(mask.numbers, DType::kFloat32, shape({v.heads, 1, v.kv_len}));
    case 'w':
      return numbers_as<float>(mask.numbers, DType::kFloat32, shape({v.q_len, 1}));
    default:
      return numbers_as<uint8_t>(mask.numbers, DType::kBool, all);
  }
}

Mask banded(const MaskInput& mask) {
  switch (mask.kind) {
    case 'n':
      return Mask::window(20, 3);
    case 'm':
      return Mask::window(9, Mask::kUnbounded, CausalAlign::kBottomRight);
    case 'o':
      return Mask::causal(5);
    default:
      return Mask::causal(mask.bottom_right() ? CausalAlign::kBottomRight : CausalAlign::kTopLeft);
  }
}

struct Masks {
  std::vector<Tensor> tensors;
  std::vector<Mask> masks;
};

Masks masks_of(const Vector& v, const std::vector<MaskInput>& inputs) {
  Masks result;
  result.tensors.reserve(inputs.size());
  for (const MaskInput& input : inputs) {
    if (input.banded()) {
      result.masks.push_back(banded(input));
      continue;
    }
    result.tensors.push_back(mask_tensor(v, input));
    const ConstTensorView view = result.tensors.back();
    if (input.kind == 'a') {
      result.masks.push_back(Mask::alibi(view, CausalAlign::kBottomRight));
      continue;
    }
    if (input.kind == 'l') {
      result.masks.push_back(Mask::key_lengths(view));
      continue;
    }
    result.masks.push_back(input.added() ? Mask::additive(view, input.factor())
                                         : Mask::boolean(view, MaskSense::kExcluded));
  }
  return result;
}

template <class T>
std::string digest_of(const Tensor& tensor) {
  return canonical::digest(tensor.data_as<T>(), static_cast<size_t>(tensor.numel()));
}

template <class T>
Digests run_linear(const Vector& v, const Inputs<T>& in) {
  const Tensor x = tensor(in.query, {1, v.q_len, v.head_dim}),
               weight = tensor(in.key, {v.v_head_dim, v.head_dim}),
               bias = tensor(in.value, {v.v_head_dim});
  Tensor out(dtype_of<T>(), shape({1, v.q_len, v.v_head_dim})),
      d_x(dtype_of<T>(), shape({1, v.q_len, v.head_dim}));
  // d_weight [Dv, D], then d_bias [Dv]
  Tensor parameters(dtype_of<T>(), shape({v.v_head_dim * (v.head_dim + 1)}));
  T* data = parameters.data_as<T>();
  const TensorView d_weight(data, dtype_of<T>(), shape({v.v_head_dim, v.head_dim})),
      d_bias(data + v.v_head_dim * v.head_dim, dtype_of<T>(), shape({v.v_head_dim}));
  const PackedLinear linear(weight, bias);
  linear.run(x, out);
  linear.input_gradient(out, d_x);
  linear_weight_gradient(x, out, d_weight, d_bias);
  return {.out = digest_of<T>(out), .lse = digest_of<T>(d_x), .weights = digest_of<T>(parameters)};
}

Rope rope_of(const Vector& v) {
  if (v.v_head_dim == 0) return {};
  double base = 1;
  for (size_t i = 0; i < v.v_head_dim / 2; ++i) base *= static_cast<double>(v.rope_ratio());
  return {.pairs = v.has('i') ? RopePairs::kInterleaved : RopePairs::kHalves,
          .base = base,
          .rotary_dim = static_cast<int64_t>(v.v_head_dim)};
}

template <class T>
Digests run_heads_vector(const Vector& v, const Inputs<T>& in) {
  const auto dim = static_cast<int64_t>(v.head_dim), position = static_cast<int64_t>(v.kv_len);
  const HeadTransform transform({.head_dim = dim,
                                 .dtype = dtype_of<T>(),
                                 .qk_norm = v.extra == 1,
                                 .qk_norm_eps = canonical::kHeadsEpsilon,
                                 .rope = rope_of(v)});
  const Tensor x = tensor(in.query, {v.batch, v.heads, v.q_len, v.head_dim}),
               weight = tensor(in.value, {v.head_dim});
  Tensor y(x), d_x = tensor(in.key, {v.batch, v.heads, v.q_len, v.head_dim}),
               d_weight(dtype_of<T>(), {dim});
  const ConstTensorView norm = v.extra == 1 ? weight.view() : ConstTensorView();
  const TensorView none = y.view().narrow(2, 0, 0);
  transform.run({y.view(), y.view(), norm, position}, {none, none, norm, position + 1});
  Tensor parts(dtype_of<T>(), {HeadTransform::num_blocks(x.size(2)), dim});
  transform.run_backward(
      {{x.view(), {}, norm, position}, d_x.view(), v.extra == 1 ? parts.view() : TensorView()});
  for (int64_t n = 0; n < parts.size(0); ++n) {
    add_elements(parts.view().select(0, n), d_weight.view());
  }
  return {.out = digest_of<T>(y), .lse = digest_of<T>(d_x), .weights = digest_of<T>(d_weight)};
}

template <class T>
struct Operands {
  Tensor query, key, value, extra_key, extra_value, sinks;
  Masks masks;

  Operands(const Vector& v, const Inputs<T>& in)
      : query(tensor(in.query, {v.batch, v.heads, v.q_len, v.head_dim})),
        key(tensor(in.key, {v.batch, v.kv_heads, v.kv_len, v.head_dim})),
        value(tensor(in.value, {v.batch, v.kv_heads, v.kv_len, v.v_head_dim})),
        extra_key(tensor(in.extra_key, {v.kv_heads, v.extra, v.head_dim})),
        extra_value(tensor(in.extra_value, {v.kv_heads, v.extra, v.v_head_dim})),
        sinks(tensor(in.sinks, {in.sinks.size()})),
        masks(masks_of(v, in.masks)) {}

  AttentionCall call(const Vector& v) const {
    AttentionCall call{.query = query, .key = key, .value = value};
    if (v.extra > 0) call.extra_key = extra_key, call.extra_value = extra_value;
    call.scale = v.scale_number();
    call.softcap = v.softcap();
    if (v.has('s')) call.sinks = sinks;
    call.masks = masks.masks;
    call.empty_rows = v.empty == "nan" ? EmptyRow::kNan : EmptyRow::kZero;
    call.dropout = {v.dropout_p(), canonical::kDropoutSeed, canonical::kDropoutCall};
    if (v.weights == "mean") call.weights_mode = WeightsMode::kAverage;
    if (v.weights == "heads") call.weights_mode = WeightsMode::kPerHead;
    return call;
  }
};

Sizes weights_shape(const Vector& v) {
  const size_t columns = v.kv_len + v.extra;
  return v.weights == "mean" ? shape({v.batch, v.q_len, columns})
                             : shape({v.batch, v.heads, v.q_len, columns});
}

struct Forward {
  Tensor out, lse, lse_rest, weights;  // weights not defined where they are not wanted

  Forward(const Vector& v, AttentionCall call)
      : out(call.query.dtype(), shape({v.batch, v.heads, v.q_len, v.v_head_dim})),
        lse(call.query.dtype(), shape({v.batch, v.heads, v.q_len})),
        lse_rest(lse.dtype(), lse.shape()) {
    if (v.weights != "-") weights = Tensor(call.query.dtype(), weights_shape(v));
    call.outputs = {.out = out, .lse = lse, .lse_rest = lse_rest};
    if (weights.defined()) call.outputs.weights = weights;
    validate(call, "canonical_order_test");
    run_attention(call);
  }
};

template <class T>
Digests run_attention_vector(const Vector& v, const Inputs<T>& in) {
  const Operands<T> operands(v, in);
  const Forward forward(v, operands.call(v));
  return {.out = digest_of<T>(forward.out),
          .lse = digest_of<T>(forward.lse),
          .weights = forward.weights.defined() ? digest_of<T>(forward.weights) : "-"};
}

template <class T>
std::string digest_of_all(const std::vector<Tensor>& tensors) {
  std::vector<T> numbers;
  for (const Tensor& one : tensors) {
    if (!one.defined()) continue;
    const T* data = one.template data_as<T>();
    numbers.insert(numbers.end(), data, data + one.numel());
  }
  return canonical::digest(numbers.data(), numbers.size());
}

Tensor like(const ConstTensorView& view, DType dtype) {
  return view.defined() ? Tensor(dtype, view.shape()) : Tensor();
}

template <class T>
Digests run_backward_vector(const Vector& v, const Inputs<T>& in) {
  const Operands<T> operands(v, in);
  BackwardCall backward{.call = operands.call(v)};
  const Forward forward(v, backward.call);
  const canonical::Cotangents<T> cotangents = canonical::make_cotangents<T>(v);
  const Tensor d_out = tensor(cotangents.d_out, {v.batch, v.heads, v.q_len, v.v_head_dim});
  backward.inputs = {
      .out = forward.out, .lse = forward.lse, .d_out = d_out, .lse_rest = forward.lse_rest};
  if (v.weights != "-") {
    backward.inputs.d_weights =
        ConstTensorView(cotangents.d_weights.data(), dtype_of<T>(), weights_shape(v));
  }
  const AttentionCall& call = backward.call;
  Tensor d_query = like(call.query, dtype_of<T>());
  std::vector<Tensor> keys, values;
  for (const auto& view : {call.key, call.extra_key}) keys.push_back(like(view, dtype_of<T>()));
  for (const auto& view : {call.value, call.extra_value}) {
    values.push_back(like(view, dtype_of<T>()));
  }
  std::vector<TensorView> d_masks;
  for (size_t n = 0; n < in.masks.size(); ++n) {
    const bool wanted = in.masks[n].differentiable();
    if (wanted) values.push_back(like(call.masks[n].tensor(), dtype_of<T>()));
    d_masks.push_back(wanted ? values.back().view() : TensorView());
  }
  backward.d_query = d_query;
  backward.d_key = keys[0];
  backward.d_value = values[0];
  if (v.extra > 0) backward.d_extra_key = keys[1], backward.d_extra_value = values[1];
  backward.d_masks = d_masks;
  if (v.has('s')) {
    values.push_back(like(call.sinks, dtype_of<T>()));
    backward.d_sinks = values.back();
  }
  validate(backward, "canonical_order_test");
  run_attention_backward(backward);
  return {.out = digest_of<T>(d_query),
          .lse = digest_of_all<T>(keys),
          .weights = digest_of_all<T>(values)};
}

template <class T>
Digests run_vector(const Vector& v) {
  const Inputs<T> in = canonical::make_inputs<T>(v);
  if (v.op == "linear") return run_linear(v, in);
  if (v.op == "heads") return run_heads_vector(v, in);
  return v.op == "backward" ? run_backward_vector(v, in) : run_attention_vector(v, in);
}

TEST(CanonicalOrder, LibraryGivesTheDigestsOfTheTable) {
  const std::vector<std::string> isas = oracle::isas_with_fma();
  if (isas.empty()) GTEST_SKIP() << "no instruction set with fused multiply-add";
  const char* other = std::getenv("POLYHEAD_CANONICAL_VECTORS");
  const std::vector<Vector> table =
      canonical::read_vectors(other != nullptr ? other : POLYHEAD_CANONICAL_TABLE);
  ASSERT_FALSE(table.empty());
  for (const std::string& name : isas) {
    const oracle::ForcedIsa forced(name);
    for (const Vector& v : table) {
      SCOPED_TRACE(name + ", " + v.name);
      const Digests got = v.dtype == "float32" ? run_vector<float>(v) : run_vector<double>(v);
      EXPECT_EQ(got.out, v.out_sha);
      EXPECT_EQ(got.lse, v.lse_sha);
      EXPECT_EQ(got.weights, v.weights_sha);
    }
  }
}

}  // namespace
}  // namespace polyhead
