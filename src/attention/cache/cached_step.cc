#include "attention/cache/cached_step.h"

#include <algorithm>
#include <numeric>
#include <span>

namespace polyhead {

CachedStep CachedStep::of_all(KvCache* cache, int64_t len, const ConstTensorView& lengths,
                              const AppendNames& names) {
  KvCache::State* const state = KvCache::State::of(cache);
  state->added.count_all(len, lengths, names);
  return checked(state, len, names);
}

CachedStep CachedStep::of_one(KvCache* cache, int64_t sequence, int64_t len,
                              const AppendNames& names) {
  KvCache::State* const state = KvCache::State::of(cache);
  state->added.count_one(sequence, len);
  return checked(state, len, names);
}

CachedStep CachedStep::checked(KvCache::State* state, int64_t len, const AppendNames& names) {
  require_room(*state, names);
  const auto& counts = state->added.counts();
  const bool alike = std::count(counts.begin(), counts.end(), len) == state->config.batch;
  if (!alike) state->added.pack();
  return CachedStep(state);
}

int64_t CachedStep::total() const {
  const auto& counts = state_.added.counts();
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

void CachedStep::run(AttentionCall call, const ConstTensorView& key,
                     const ConstTensorView& value) const {
  // The lengths are ahead of the pool for a while; at the end, or if something fails, they are what
  // it says.
  struct Follow {
    KvCache::State& state;
    ~Follow() { state.follow_pool(); }
  } follow{state_};
  for (size_t n = 0; n < state_.lengths.size(); ++n) {
    state_.lengths[n] += state_.added.counts()[n];
    state_.cached[n].length = state_.lengths[n];
  }
  constexpr auto kEnd = CausalAlign::kBottomRight;
  const Mask masks[] = {Mask::causal(kEnd), lengths_mask(state_), window_mask(state_.config, kEnd)};
  call.masks = std::span(masks).first(state_.config.window > 0 ? 3 : 2);
  call.key = state_.key;
  call.value = state_.value;
  call.cached = state_.cached;
  call.longest_cached = *std::max_element(state_.lengths.begin(), state_.lengths.end());
  if (packed()) call.cu_seqlens_q = state_.added.bounds();
  // All memory first: what an append forgets cannot be brought back.
  call.only_reserves = true;
  run_attention(call);
  append_added(&state_, key, value);
  call.only_reserves = false;
  run_attention(call);
}

}  // namespace polyhead
