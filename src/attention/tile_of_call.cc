#include "attention/tile_of_call.h"

namespace polyhead {

TileMask::Element mask_element(const Mask& mask) {
  if (mask.kind() == Mask::Kind::kBoolean) {
    return mask.sense() == MaskSense::kExcluded ? TileMask::Element::kHiddenIfTrue
                                                : TileMask::Element::kHiddenIfFalse;
  }
  switch (mask.tensor().dtype()) {
    case DType::kFloat32:
      return TileMask::Element::kFloat32;
    case DType::kFloat64:
      return TileMask::Element::kFloat64;
    case DType::kInt32:
      return TileMask::Element::kInt32;
    case DType::kInt64:
      return TileMask::Element::kInt64;
    default:
      return TileMask::Element::kBool;
  }
}

double attention_flops(const AttentionCall& call) {
  return 2.0 * static_cast<double>(call.batch() * call.num_heads()) *
         static_cast<double>(call.q_len()) * static_cast<double>(call.kv_len()) *
         static_cast<double>(call.head_dim() + call.v_head_dim());
}

}  // namespace polyhead
