#include "structure.h"

#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <polyhead/error.h>

#include <string>
#include <vector>

#include "words.h"

namespace polyhead::python {
namespace {

QueryOffset offset_of(const char* causal_align_word, std::optional<int64_t> query_offset) {
  const CausalAlign align = causal_align(causal_align_word);
  if (!query_offset.has_value()) return align;
  if (align != CausalAlign::kTopLeft) {
    throw InvalidArgument("query_offset: got " + std::to_string(*query_offset) +
                          ", with causal_align='bottom_right'; need one of them");
  }
  return *query_offset;
}

// True and False are numbers to Python, too.
bool has_bool(nanobind::handle given) {
  if (!nanobind::isinstance<nanobind::sequence>(given)) return false;
  for (const nanobind::handle side : nanobind::cast<nanobind::sequence>(given)) {
    if (nanobind::isinstance<nanobind::bool_>(side)) return true;
  }
  return false;
}

void check_given_together(const ConstTensorView& a, const ConstTensorView& b, const char* names) {
  if (a.defined() == b.defined()) return;
  throw InvalidArgument(std::string(names) + ": got one of them; need both");
}

const char* argument_of(Mask::Kind kind) {
  switch (kind) {
    case Mask::Kind::kCausal:
      return "is_causal";
    case Mask::Kind::kWindow:
      return "window";
    case Mask::Kind::kKeyLengths:
      return "key_lengths";
    case Mask::Kind::kAlibi:
      return "alibi_slopes";
    case Mask::Kind::kSegments:
      return "segments";
    case Mask::Kind::kBoolean:
    case Mask::Kind::kAdditive:
      break;
  }
  return "attn_mask";
}

// The argument that says where the queries stand; null: none does, and they stand at the start.
const char* placed_by(const QueryOffset& offset) {
  if (offset.is_number()) return "query_offset";
  const bool at_the_start = offset.of(0, 1) == 0;
  return at_the_start ? nullptr : "causal_align='bottom_right'";
}

}  // namespace

Renames names_of(const AttentionOptions& options, const char* function) {
  Renames names = {{"attention_forward", function},
                   {"attention_backward", function},
                   {"WeightsMode::kNone", "None"}};
  for (size_t i = 0; i < options.masks.size(); ++i) {
    const std::string mask = "masks[" + std::to_string(i) + "]";
    names.insert(names.end(), {{mask + ".offset", "query_offset"},
                               {mask + ".left", "window"},
                               {mask + ".right", "window"},
                               {mask + ".query_ids", "segments[0]"},
                               {mask + ".key_ids", "segments[1]"},
                               {"query_ids's", "segments[0]'s"},
                               {mask, argument_of(options.masks[i].kind())}});
  }
  return names;
}

std::optional<Window> window_of(nanobind::handle given) {
  if (given.is_none()) return {};
  Window window;
  if (!has_bool(given) && nanobind::try_cast(given, window)) return window;
  const std::string got = nanobind::repr(given).c_str();
  throw nanobind::type_error(
      ("window: got " + got + "; need (left, right), an int or None each").c_str());
}

Structure::Structure(bool is_causal, const char* causal_align, const std::optional<Window>& window,
                     std::optional<int64_t> query_offset)
    : is_causal_(is_causal), offset_(offset_of(causal_align, query_offset)), window_(window) {}

void Structure::add_to(AttentionOptions* options, const StructureTensors& tensors) const {
  std::vector<Mask>& masks = options->masks;
  check_given_together(tensors.query_segments, tensors.key_segments, "segments");
  const bool compares = is_causal_ || window_.has_value() || tensors.alibi_slopes.defined();
  if (const char* name = placed_by(offset_); name != nullptr && !compares) {
    throw InvalidArgument(std::string(name) +
                          ": nothing compares positions; need is_causal, window or alibi_slopes");
  }
  if (is_causal_) masks.push_back(Mask::causal(offset_));
  if (window_.has_value()) {
    const auto [left, right] = *window_;
    masks.push_back(
        Mask::window(left.value_or(Mask::kUnbounded), right.value_or(Mask::kUnbounded), offset_));
  }
  if (tensors.key_lengths.defined()) masks.push_back(Mask::key_lengths(tensors.key_lengths));
  if (tensors.query_segments.defined()) {
    masks.push_back(Mask::segments(tensors.query_segments, tensors.key_segments));
  }
  if (tensors.alibi_slopes.defined()) masks.push_back(Mask::alibi(tensors.alibi_slopes, offset_));
  options->sinks = tensors.sinks;
  options->cu_seqlens_q = tensors.cu_seqlens_q;
  options->cu_seqlens_k = tensors.cu_seqlens_k;
}

}  // namespace polyhead::python
