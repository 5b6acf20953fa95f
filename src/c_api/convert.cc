#include "c_api/convert.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include <polyhead/error.h>
#include "base/checked_math.h"
#include "base/message.h"

namespace polyhead::c_api {
namespace {

constexpr size_t kMaxStructSize = 4096;  // more is a mistake, and would be read
constexpr size_t kMaxNames = 4096;
constexpr int32_t kNumDTypes = static_cast<int32_t>(DType::kInt64) + 1;

// The distance from the first element to each end must be countable in bytes.
bool spans_address_space(const polyhead_tensor& tensor, int64_t bytes) {
  int64_t extent = 0;
  for (int32_t i = 0; i < tensor.rank; ++i) {
    const int64_t stride = tensor.strides[i], steps = std::max<int64_t>(tensor.shape[i], 1) - 1;
    int64_t reach;
    if (stride == INT64_MIN || !checked_multiply(steps, std::abs(stride), &reach) ||
        !checked_add(extent, reach, &extent)) {
      return true;
    }
  }
  return !checked_multiply(extent, bytes, &extent);
}

void check_tensor(const polyhead_tensor& tensor, const Place& place) {
  if (tensor.dtype < 0 || tensor.dtype >= kNumDTypes) {
    fail(place, message("dtype is ", tensor.dtype), message("0 to ", kNumDTypes - 1));
  }
  if (tensor.rank < 0 || tensor.rank > kMaxRank) {
    fail(place, message("rank is ", tensor.rank), message("0 to ", kMaxRank));
  }
  if (tensor.rank > 0 && tensor.shape == nullptr) {
    fail(place, message("shape is null with rank ", tensor.rank), "given");
  }
  const size_t bytes = dtype_bytes(static_cast<DType>(tensor.dtype));
  bool empty = false;
  auto total = static_cast<int64_t>(bytes);
  for (int32_t i = 0; i < tensor.rank; ++i) {
    const int64_t size = tensor.shape[i];
    if (size < 0) fail(place, message("shape[", i, "] is ", size), "0 or more");
    empty |= size == 0;
    if (!checked_multiply(total, std::max<int64_t>(size, 1), &total)) {
      fail(place, message("shape[0] to shape[", i, "], but for 0, make 2^63 bytes or more"),
           "smaller");
    }
  }
  if (!empty && tensor.data == nullptr) fail(place, "data is null", "given");
  if (reinterpret_cast<uintptr_t>(tensor.data) % bytes != 0) {
    fail(place, "data is not aligned", message("aligned to ", bytes, " bytes"));
  }
  if (tensor.strides != nullptr && spans_address_space(tensor, static_cast<int64_t>(bytes))) {
    fail(place, "strides reach beyond all memory", "smaller");
  }
}

size_t checked_struct_size(const void* options, const Place& place) {
  size_t size;
  std::memcpy(&size, options, sizeof size);
  if (size < sizeof size || size > kMaxStructSize || size % alignof(int64_t) != 0) {
    fail(place, message("struct_size is ", size), "sizeof the struct");
  }
  return size;
}

NameMap ready_made_map(int32_t map, const char* function) {
  switch (checked_enum(map, POLYHEAD_MAP_LLAMA + 1, {function, "options.map"})) {
    case POLYHEAD_MAP_BERT:
      return name_maps::bert();
    case POLYHEAD_MAP_VIT:
      return name_maps::vit();
    case POLYHEAD_MAP_LLAMA:
      return name_maps::llama();
    default:
      return {};
  }
}

// A mistake in a struct would shift fields between versions: no padding, whole words.
static_assert(sizeof(polyhead_load_options) == 104 + 6 * sizeof(int32_t));
static_assert(sizeof(polyhead_mha_config) == 128 + 10 * sizeof(int32_t));
static_assert(sizeof(polyhead_forward_options) == 40 + 4 * sizeof(int32_t));
static_assert(sizeof(polyhead_scratch_config) == 32 + 2 * sizeof(int32_t));
static_assert(sizeof(polyhead_attention_options) == 96 + 4 * sizeof(int32_t));
static_assert(sizeof(polyhead_mask) == 56 + 4 * sizeof(int32_t));
static_assert(sizeof(polyhead_score_block) == 72 + 2 * sizeof(int32_t));
static_assert(sizeof(polyhead_score_mod) == 40);
static_assert(sizeof(polyhead_kv_cache_config) == 64 + 2 * sizeof(int32_t));
static_assert(sizeof(polyhead_cached_forward_options) == 24);

}  // namespace

void fail(const Place& place, const std::string& got, const std::string& need) {
  throw InvalidArgument(
      message(place.function, ": ", place.argument, ": ", got, "; must be ", need));
}

TensorView optional_view(const polyhead_tensor* tensor, const Place& place) {
  if (tensor == nullptr) return {};
  check_tensor(*tensor, place);
  const auto dtype = static_cast<DType>(tensor->dtype);
  const auto rank = static_cast<size_t>(tensor->rank);
  const Shape shape(tensor->shape, rank);
  if (tensor->strides == nullptr) return {tensor->data, dtype, shape};
  return {tensor->data, dtype, shape, Shape(tensor->strides, rank)};
}

TensorView required_view(const polyhead_tensor* tensor, const Place& place) {
  require_not_null(tensor, place);
  return optional_view(tensor, place);
}

polyhead_tensor tensor_of(const ConstTensorView& view) {
  return {.data = const_cast<void*>(view.data()),
          .dtype = static_cast<int32_t>(view.dtype()),
          .rank = view.rank(),
          .shape = view.shape().data(),
          .strides = view.strides().data()};
}

bool flag(int32_t value, const Place& place) { return checked_enum(value, 2, place) == 1; }

int32_t checked_enum(int32_t value, int32_t count, const Place& place) {
  if (value < 0 || value >= count) {
    fail(place, message("is ", value), message("0 to ", count - 1));
  }
  return value;
}

void require_zero(int32_t reserved, const Place& place) {
  if (reserved != 0) fail(place, message("is ", reserved), "0");
}

void copy_options(void* to, size_t known, const void* from, const Place& place) {
  const size_t size = checked_struct_size(from, place);
  const auto* bytes = static_cast<const std::byte*>(from);
  const auto is_set = [](std::byte byte) { return byte != std::byte{0}; };
  if (size > known && std::any_of(bytes + known, bytes + size, is_set)) {
    throw Unsupported(message(place.function, ": ", place.argument, ": struct_size is ", size,
                              ", and an option after byte ", known,
                              " is set; this version of the library does not know it"));
  }
  std::memcpy(to, from, std::min(size, known));
}

void fill_options(void* to, size_t known, const void* from, const Place& place) {
  const size_t size = checked_struct_size(to, place);
  const size_t begin = sizeof(size_t), end = std::min(size, known);
  std::memcpy(static_cast<std::byte*>(to) + begin, static_cast<const std::byte*>(from) + begin,
              end - begin);
  std::memset(static_cast<std::byte*>(to) + end, 0, size - end);
}

LoadOptions load_options(const polyhead_load_options* options, const char* function) {
  const auto given = read_options(options, {function, "options"});
  LoadOptions result;
  result.num_heads = given.num_heads;
  result.layout = enum_of(given.layout, Layout::kSequenceFirst, {function, "options.layout"});
  if (given.prefix != nullptr) result.prefix = given.prefix;
  if (flag(given.add_zero_attn, {function, "options.add_zero_attn"})) result.add_zero_attn = true;
  if (given.dropout != 0) result.dropout = given.dropout;
  require_zero(given.reserved, {function, "options.reserved"});
  result.rope =
      rope_of(given, {function, "options.rope_pairs"}, {function, "options.rope_scaling"});
  if (given.qk_norm_eps != 0) result.qk_norm_eps = given.qk_norm_eps;
  result.names = ready_made_map(given.map, function);
  if (given.num_names > kMaxNames) {
    fail({function, "options.num_names"}, message("is ", given.num_names),
         message("at most ", kMaxNames));
  }
  if (given.num_names > 0) require_not_null(given.names, {function, "options.names"});
  for (size_t i = 0; i < given.num_names; ++i) {
    require_not_null(given.names[i].theirs, {function, "options.names[].theirs"});
    require_not_null(given.names[i].ours, {function, "options.names[].ours"});
    result.names[given.names[i].theirs] = given.names[i].ours;
  }
  return result;
}

}  // namespace polyhead::c_api
