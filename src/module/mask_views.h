// How the op sees a module's mask, or the memory of its gradient: the same elements as a tensor of
// two or four dimensions.
#pragma once

#include <cstdint>

#include <polyhead/tensor_view.h>

namespace polyhead {

// key_padding_mask [B, S] or [S] -> [B, 1, 1, S]
template <class View>
View padding_for_op(const View& mask, int64_t batch) {
  const int last = mask.rank() - 1;
  const int64_t sizes[] = {batch, 1, 1, mask.size(last)};
  const int64_t strides[] = {last > 0 ? mask.stride(0) : 0, 0, 0, mask.stride(last)};
  return {mask.data(), mask.dtype(), sizes, strides};
}

// attn_mask [B*H, L, S], of which slice b * H + h is read -> [B, H, L, S]; others as they are
template <class View>
View attn_mask_for_op(const View& mask, int64_t batch, int64_t heads) {
  if (mask.rank() != 3) return mask;
  const int64_t sizes[] = {batch, heads, mask.size(1), mask.size(2)};
  const int64_t strides[] = {heads * mask.stride(0), mask.stride(0), mask.stride(1),
                             mask.stride(2)};
  return {mask.data(), mask.dtype(), sizes, strides};
}

// The from-scratch class's mask, right-aligned -> 4-D
template <class View>
View scratch_mask_for_op(View mask) {
  while (mask.rank() < 4) mask = mask.unsqueezed(0);
  return mask;
}

}  // namespace polyhead
