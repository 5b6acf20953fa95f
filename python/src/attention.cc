// The op, as Python calls it.
#include <polyhead/attention.h>
#include <polyhead/error.h>

#include <algorithm>
#include <string>
#include <vector>

#include "arrays.h"
#include "bind.h"
#include "op_options.h"

namespace polyhead::python {
namespace {

[[noreturn]] void fail(const char* argument, const std::string& got, const std::string& need) {
  throw InvalidArgument(std::string("scaled_dot_product_attention: ") + argument + ": " + got +
                        "; need " + need);
}

// `view` with sizes of 1 in front.
template <class View>
View of_rank(View view, int rank) {
  while (view.rank() < rank) view = view.unsqueezed(0);
  return view;
}

// The operands of a call with any number of leading dimensions, at least [B, H, L, D].
struct Operands {
  ConstTensorView query, key, value, mask;
  TensorView out, weights;
};

// Sizes of 1 repeat, by a stride of 0, to what `leading` says; the last two stay.
ConstTensorView repeated(const ConstTensorView& view, Shape leading) {
  std::vector<int64_t> shape(view.shape().begin(), view.shape().end());
  std::vector<int64_t> strides(view.strides().begin(), view.strides().end());
  for (size_t dim = 0; dim < leading.size(); ++dim) {
    if (shape[dim] != leading[dim]) strides[dim] = 0;
    shape[dim] = leading[dim];
  }
  return {view.data(), view.dtype(), shape, strides};
}

// The one size that query, key and value agree on, 1 agreeing with all.
int64_t common_size(const Operands& all, int dim, bool is_heads) {
  const int64_t sizes[] = {all.query.size(dim), all.key.size(dim), all.value.size(dim)};
  const int64_t* const found =
      std::find_if(sizes, std::end(sizes), [](int64_t size) { return size != 1; });
  const int64_t common = found == std::end(sizes) ? 1 : *found;
  static constexpr const char* kNames[] = {"query", "key", "value"};
  for (int i = 0; i < 3; ++i) {
    if (sizes[i] == 1 || sizes[i] == common) continue;
    const std::string need = std::to_string(common) + " or 1";
    fail(kNames[i],
         std::string(is_heads ? "num_heads" : "batch") + " is " + std::to_string(sizes[i]),
         is_heads ? need + ", or enable_gqa=True" : need);
  }
  return common;
}

// Ranks made equal, batch (and heads, unless they are grouped) made equal by repetition.
void broadcast(Operands& all, bool enable_gqa) {
  const int rank = std::max({4, all.query.rank(), all.key.rank(), all.value.rank()});
  for (ConstTensorView* view : {&all.query, &all.key, &all.value}) *view = of_rank(*view, rank);
  std::vector<int64_t> leading;  // batch dimensions, then heads
  for (int dim = 0; dim < rank - 2; ++dim) {
    const bool is_heads = dim == rank - 3;
    if (is_heads && enable_gqa) break;
    leading.push_back(common_size(all, dim, is_heads));
  }
  for (ConstTensorView* view : {&all.query, &all.key, &all.value}) *view = repeated(*view, leading);
}

template <class View>
View without_first(const View& view) {
  const auto rank = static_cast<size_t>(view.rank());
  return {view.data(), view.dtype(), view.shape().last(rank - 1), view.strides().last(rank - 1)};
}

// Of no items in the first dimension, what makes one call that computes nothing: it has no batch
// items either, and is checked as any other.
Operands of_none(const Operands& all) {
  const int batch = all.query.rank() - 4;
  const auto none = [batch](const auto& view) {
    return view.defined() ? without_first(view.narrow(batch, 0, 0)) : view;
  };
  ConstTensorView mask = all.mask;
  const int of_mask = mask.rank() - 4;  // its batch
  if (of_mask >= 0 && mask.size(of_mask) == all.query.size(batch))
    mask = mask.narrow(of_mask, 0, 0);
  if (mask.rank() == all.query.rank()) mask = without_first(mask);
  return {none(all.query), none(all.key), none(all.value), mask, none(all.out), none(all.weights)};
}

// attention_forward for each index of the dimensions before [B, H, L, D]; `part` counts them.
void run(const Operands& all, const Options& options, uint32_t part = 0) {
  if (all.query.rank() == 4) {
    const AttentionOptions of_part = options.of_part(all.mask, part);
    in_names([&] { return names_of(of_part, options.function().c_str()); },
             [&] {
               attention_forward(all.query, all.key, all.value, of_part,
                                 {.out = all.out, .weights = all.weights});
             });
    return;
  }
  const int64_t count = all.query.size(0);
  const bool mask_has_dim = all.mask.rank() == all.query.rank();
  if (mask_has_dim && all.mask.size(0) != 1 && all.mask.size(0) != count) {
    fail("attn_mask", "shape is " + all.mask.shape_string(),
         "a first size of 1 or " + std::to_string(count));
  }
  if (count == 0) return run(of_none(all), options, part);
  for (int64_t i = 0; i < count; ++i) {
    Operands one{all.query.select(0, i), all.key.select(0, i), all.value.select(0, i), all.mask,
                 all.out.select(0, i),   all.weights};
    if (mask_has_dim) one.mask = all.mask.select(0, all.mask.size(0) == 1 ? 0 : i);
    if (all.weights.defined()) one.weights = all.weights.select(0, i);
    run(one, options, part * static_cast<uint32_t>(count) + static_cast<uint32_t>(i));
  }
}

// The sizes of query, without the dimensions that `rank` says the caller did not give.
std::vector<int64_t> leading_sizes(const ConstTensorView& query, int rank) {
  const Shape shape = query.shape();
  return {shape.end() - rank, shape.end() - 2};
}

NewArray new_weights(const Operands& all, int rank, WeightsMode mode) {
  std::vector<int64_t> shape = leading_sizes(all.query, rank);  // [.., H]
  if (mode == WeightsMode::kAverage && rank > 2) shape.pop_back();
  const int dim = all.query.rank() - 2;
  shape.insert(shape.end(), {all.query.size(dim), all.key.size(dim)});
  NewArray weights = new_array(shape, all.query.dtype());
  weights.view = of_rank(weights.view, mode == WeightsMode::kAverage ? dim + 1 : dim + 2);
  return weights;
}

NewArray new_out(const Operands& all, int rank) {
  std::vector<int64_t> shape = leading_sizes(all.query, rank);
  const int dim = all.query.rank() - 2;
  shape.insert(shape.end(), {all.query.size(dim), all.value.size(dim + 1)});
  NewArray out = new_array(shape, all.query.dtype());
  out.view = of_rank(out.view, all.query.rank());
  return out;
}

Input operand(nb::handle object, const char* argument, const char* name) {
  Input operand = input(object, argument, kFloats);
  if (operand.view.rank() < 2) {
    fail(name, "shape is " + operand.view.shape_string(), "[..., heads, length, head_dim]");
  }
  return operand;
}

nb::object attend(nb::handle query, nb::handle key, nb::handle value, const Options& options,
                  bool enable_gqa) {
  const Input q = operand(query, "scaled_dot_product_attention: query", "query");
  const Input k = operand(key, "scaled_dot_product_attention: key", "key");
  const Input v = operand(value, "scaled_dot_product_attention: value", "value");
  const int rank = std::max({q.view.rank(), k.view.rank(), v.view.rank()});
  Operands all{q.view, k.view, v.view, options.mask(), {}, {}};
  if (all.mask.rank() > rank) {
    fail("attn_mask", "shape is " + all.mask.shape_string(),
         "at most " + std::to_string(rank) + " dimensions");
  }
  const DType dtype = all.query.dtype();
  if (dtype != DType::kFloat32 && dtype != DType::kFloat64) {
    fail("query", std::string("dtype is ") + dtype_name(dtype), "float32 or float64");
  }
  if (rank > 4 && options.tells_items_apart()) {
    fail("key_lengths, alibi_slopes, segments, score_mod",
         "given for each batch item, with " + std::to_string(rank) + " dimensions",
         "at most 4 with them");
  }
  broadcast(all, enable_gqa);
  const NewArray out = new_out(all, rank);
  all.out = out.view;
  NewArray weights;
  if (options.weights() != WeightsMode::kNone) {
    weights = new_weights(all, rank, options.weights());
    all.weights = weights.view;
  }
  {
    nb::gil_scoped_release others_may_run;
    run(all, options);
  }
  options.rethrow();
  if (!all.weights.defined()) return out.array;
  return nb::make_tuple(out.array, weights.array);
}

// [T, H, D] -> [1, H, T, D]
template <class View>
View packed(const View& view, const char* name) {
  if (view.rank() != 3) {
    throw InvalidArgument(std::string("packed_attention: ") + name + ": shape is " +
                          view.shape_string() + "; need [tokens, heads, head_dim]");
  }
  return batch_of_one(view);
}

nb::object attend_packed(nb::handle query, nb::handle key, nb::handle value,
                         const Options& options) {
  const Input q = input(query, "packed_attention: query", kFloats);
  const Input k = input(key, "packed_attention: key", kFloats);
  const Input v = input(value, "packed_attention: value", kFloats);
  const ConstTensorView queries = packed(q.view, "query");  // [1, H, T, D]
  const ConstTensorView keys = packed(k.view, "key"), values = packed(v.view, "value");
  const DType dtype = q.view.dtype();
  if (dtype != DType::kFloat32 && dtype != DType::kFloat64) {
    throw InvalidArgument(std::string("packed_attention: query: dtype is ") + dtype_name(dtype) +
                          "; need float32 or float64");
  }
  const int64_t shape[] = {q.view.size(0), q.view.size(1), v.view.size(2)};
  const NewArray out = new_array(shape, dtype);  // [T, H, Dv]
  {
    nb::gil_scoped_release others_may_run;
    const AttentionOptions all = options.of_part({}, 0);
    in_names(
        [&] { return names_of(all, options.function().c_str()); },
        [&] { attention_forward(queries, keys, values, all, {.out = packed(out.view, "out")}); });
  }
  options.rethrow();
  return out.array;
}

}  // namespace

void bind_attention(nb::module_& module) {
  bind_op_options(module);
  module.def("attend", attend, nb::arg("query").none(), nb::arg("key").none(),
             nb::arg("value").none(), nb::arg("options"), nb::arg("enable_gqa"));
  module.def("attend_packed", attend_packed, nb::arg("query").none(), nb::arg("key").none(),
             nb::arg("value").none(), nb::arg("options"));
}

}  // namespace polyhead::python
