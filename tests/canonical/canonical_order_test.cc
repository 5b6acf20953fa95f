// The library on the test vectors of docs/canonical_order.md: the digests of the table, on every
// instruction set with fused multiply-add. POLYHEAD_CANONICAL_VECTORS names another table.
#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <polyhead/linear.h>
#include <polyhead/runtime.h>
#include "attention/attention_call.h"
#include "inputs.h"
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
    default:
      return numbers_as<uint8_t>(mask.numbers, DType::kBool, all);
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
    if (input.causal()) {
      result.masks.push_back(
          Mask::causal(input.kind == 'r' ? CausalAlign::kBottomRight : CausalAlign::kTopLeft));
      continue;
    }
    result.tensors.push_back(mask_tensor(v, input));
    const ConstTensorView view = result.tensors.back();
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

template <class T>
Digests run_attention_vector(const Vector& v, const Inputs<T>& in) {
  const Tensor query = tensor(in.query, {v.batch, v.heads, v.q_len, v.head_dim}),
               key = tensor(in.key, {v.batch, v.kv_heads, v.kv_len, v.head_dim}),
               value = tensor(in.value, {v.batch, v.kv_heads, v.kv_len, v.v_head_dim}),
               extra_key = tensor(in.extra_key, {v.kv_heads, v.extra, v.head_dim}),
               extra_value = tensor(in.extra_value, {v.kv_heads, v.extra, v.v_head_dim});
  const Masks masks = masks_of(v, in.masks);
  const size_t columns = v.kv_len + v.extra;
  Tensor out(dtype_of<T>(), shape({v.batch, v.heads, v.q_len, v.v_head_dim})),
      lse(dtype_of<T>(), shape({v.batch, v.heads, v.q_len})), weights;
  AttentionCall call{.query = query, .key = key, .value = value};
  if (v.extra > 0) call.extra_key = extra_key, call.extra_value = extra_value;
  call.scale = v.scale_number();
  call.masks = masks.masks;
  call.empty_rows = v.empty == "nan" ? EmptyRow::kNan : EmptyRow::kZero;
  call.dropout = {v.dropout_p(), canonical::kDropoutSeed, canonical::kDropoutCall};
  call.outputs = {.out = out, .lse = lse};
  if (v.weights != "-") {
    const bool mean = v.weights == "mean";
    call.weights_mode = mean ? WeightsMode::kAverage : WeightsMode::kPerHead;
    weights = Tensor(dtype_of<T>(), mean ? shape({v.batch, v.q_len, columns})
                                         : shape({v.batch, v.heads, v.q_len, columns}));
    call.outputs.weights = weights;
  }
  validate(call, "canonical_order_test");
  run_attention(call);
  return {.out = digest_of<T>(out),
          .lse = digest_of<T>(lse),
          .weights = weights.defined() ? digest_of<T>(weights) : "-"};
}

template <class T>
Digests run_vector(const Vector& v) {
  const Inputs<T> in = canonical::make_inputs<T>(v);
  return v.op == "linear" ? run_linear(v, in) : run_attention_vector(v, in);
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
