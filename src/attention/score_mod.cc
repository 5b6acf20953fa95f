#include "attention/score_mod.h"

namespace polyhead {
namespace {

const AttentionCall& call_of(const TileScoreMod& mod) {
  return *static_cast<const AttentionCall*>(mod.user);
}

ScoreBlock block_of(const TileScoreMod& mod, const TileScores& scores, void* data) {
  const auto size = [](size_t n) { return static_cast<int64_t>(n); };
  return {.scores = data,
          .dtype = call_of(mod).query.dtype(),
          .batch = mod.batch,
          .head = mod.head,
          .first_query = mod.first_query + size(scores.first_row),
          .first_key = size(scores.first_key),
          .num_queries = size(scores.rows),
          .num_keys = size(scores.keys),
          .query_stride = scores.row_stride,
          .key_stride = scores.key_stride};
}

void change(const TileScoreMod& mod, const TileScores& scores) {
  const ScoreMod& own = call_of(mod).score_mod;
  own.forward(block_of(mod, scores, scores.data), own.context);
}

void differentiate(const TileScoreMod& mod, const TileScores& scores, void* d_scores) {
  const ScoreMod& own = call_of(mod).score_mod;
  own.backward(block_of(mod, scores, scores.data), block_of(mod, scores, d_scores), own.context);
}

bool is_empty(const TileScoreMod& mod, const TileScores& block) {
  const ScoreMod& own = call_of(mod).score_mod;
  return own.is_empty(block_of(mod, block, nullptr), own.context);
}

// One score as a block of its own.
template <class T>
struct OneScore {
  T score, d_score;
  ScoreBlock block, d_block;

  OneScore(const AttentionCall& call, const int64_t (&bhij)[4], double s, double d_s)
      : score(static_cast<T>(s)),
        d_score(static_cast<T>(d_s)),
        block{.scores = &score,
              .dtype = call.query.dtype(),
              .batch = call.first_sequence + bhij[0],
              .head = bhij[1],
              .first_query = bhij[2],
              .first_key = bhij[3],
              .num_queries = 1,
              .num_keys = 1,
              .query_stride = 1,
              .key_stride = 1},
        d_block(block) {
    d_block.scores = &d_score;
  }
};

template <class T>
double forward_one(const AttentionCall& call, const int64_t (&bhij)[4], double score) {
  const OneScore<T> one(call, bhij, score, 0);
  call.score_mod.forward(one.block, call.score_mod.context);
  return static_cast<double>(one.score);
}

template <class T>
double backward_one(const AttentionCall& call, const int64_t (&bhij)[4], double score,
                    double d_score) {
  const OneScore<T> one(call, bhij, score, d_score);
  call.score_mod.backward(one.block, one.d_block, call.score_mod.context);
  return static_cast<double>(one.d_score);
}

}  // namespace

TileScoreMod tile_score_mod(const AttentionCall& call, int64_t sequence, int64_t head,
                            int64_t row) {
  return {.change = change,
          .differentiate = differentiate,
          .is_empty = call.score_mod.is_empty != nullptr ? is_empty : nullptr,
          .user = &call,
          .batch = call.first_sequence + sequence,
          .head = head,
          .first_query = row};
}

double modified_score(const AttentionCall& call, const int64_t (&bhij)[4], double score) {
  const bool single = call.query.dtype() == DType::kFloat32;
  return single ? forward_one<float>(call, bhij, score) : forward_one<double>(call, bhij, score);
}

double modified_gradient(const AttentionCall& call, const int64_t (&bhij)[4], double score,
                         double d_score) {
  const bool single = call.query.dtype() == DType::kFloat32;
  return single ? backward_one<float>(call, bhij, score, d_score)
                : backward_one<double>(call, bhij, score, d_score);
}

}  // namespace polyhead
