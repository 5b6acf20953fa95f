#include "c_api/score_mod.h"

namespace polyhead::c_api {
namespace {

const polyhead_score_mod& own(const void* context) {
  return *static_cast<const polyhead_score_mod*>(context);
}

polyhead_score_block block_of(const ScoreBlock& block) {
  return {.scores = block.scores,
          .batch = block.batch,
          .head = block.head,
          .first_query = block.first_query,
          .first_key = block.first_key,
          .num_queries = block.num_queries,
          .num_keys = block.num_keys,
          .query_stride = block.query_stride,
          .key_stride = block.key_stride,
          .dtype = static_cast<int32_t>(block.dtype),
          .reserved = 0};
}

void forward(const ScoreBlock& scores, void* context) {
  const polyhead_score_block block = block_of(scores);
  own(context).forward(&block, own(context).context);
}

void backward(const ScoreBlock& scores, const ScoreBlock& d_scores, void* context) {
  const polyhead_score_block block = block_of(scores), d_block = block_of(d_scores);
  own(context).backward(&block, &d_block, own(context).context);
}

bool is_empty(const ScoreBlock& scores, void* context) {
  const polyhead_score_block block = block_of(scores);
  return own(context).is_empty(&block, own(context).context) != 0;
}

}  // namespace

ScoreMod score_mod_of(polyhead_score_mod* own) {
  return {.forward = forward,
          .backward = own->backward != nullptr ? backward : nullptr,
          .is_empty = own->is_empty != nullptr ? is_empty : nullptr,
          .context = own};
}

}  // namespace polyhead::c_api
