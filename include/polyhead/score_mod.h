// A function of one's own between the scores and the softmax.
//
//   const auto slope = [](auto score, int, int head, int query, int key) {
//     return score - 0.1F * static_cast<float>((head + 1) * std::abs(query - key));
//   };
//   options.score_mod = per_score(slope);  // `slope` must live as long as the options are used
//
// It sees scaled scores, after the softcap and before masks; -inf in their place hides the pair. It
// is called by several threads at once, must not throw, and has to give a pair's score the same
// result in whatever block it comes: blocks differ with threads and instruction sets, bits do not.
#pragma once

#include <cstdint>

#include <polyhead/tensor_view.h>

#pragma GCC visibility push(default)
namespace polyhead {

// Scores of some queries and keys of one head. That of query first_query + i and key first_key + j
// is at scores[i * query_stride + j * key_stride].
struct ScoreBlock {
  void* scores;         // of the dtype
  DType dtype;          // kFloat32 or kFloat64: the query's
  int64_t batch, head;  // batch: of a packed call the sequence, in which positions count from 0
  int64_t first_query, first_key;
  int64_t num_queries, num_keys;
  int64_t query_stride, key_stride;
};

// Functions on blocks, and what they are called with.
struct ScoreMod {
  // Changes the scores in place. Null: there is none.
  void (*forward)(const ScoreBlock& scores, void* context) = nullptr;
  // Turns the derivatives of a loss with respect to what forward left into those with respect to
  // what it got, in place; `scores` are what it got. Of a hidden pair it is not looked at. Without
  // it attention_backward throws Unsupported.
  void (*backward)(const ScoreBlock& scores, const ScoreBlock& d_scores, void* context) = nullptr;
  // Whether forward hides the whole of a block, so that nothing of it need be computed; its scores
  // are null here. Null: not known. What is said here must be so: forward is not asked again.
  bool (*is_empty)(const ScoreBlock& block, void* context) = nullptr;
  void* context = nullptr;
};

// Where the program is compiled for every x86-64, the loops are compiled for AVX2 as well, which
// has the same bits (a fused multiply-add would not), and per_score chooses.
#if defined(__x86_64__) && !defined(__AVX2__)
#define POLYHEAD_SCORE_MOD_FOR_AVX2 __attribute__((target("avx2")))
#endif
#define POLYHEAD_SCORE_MOD_INLINE __attribute__((always_inline)) inline

namespace score_mod_detail {

// The first of some scores that follow each other, and its place.
struct Run {
  int64_t offset;
  int query, key;
};

// kCount dense scores, which `change` does not read but for its own: a loop that compilers make
// vectors of, at -O2 too.
template <int kCount, bool kByKey, class T, class Change>
POLYHEAD_SCORE_MOD_INLINE void change_run(T* scores, const Run& first, const Change& change) {
  T* run = scores + first.offset;
#if defined(__clang__)
#pragma clang loop vectorize(assume_safety)
#else
#pragma GCC ivdep
#pragma GCC unroll 1
#endif
  for (int k = 0; k < kCount; ++k) {
    run[k] = change(run[k], first.offset + k, first.query + (kByKey ? 0 : k),
                    first.key + (kByKey ? k : 0));
  }
}

template <bool kByKey, class T, class Change>
POLYHEAD_SCORE_MOD_INLINE void change_lines(const ScoreBlock& block, T* scores,
                                            const Change& change) {
  constexpr int kLong = 16, kShort = 4;
  const int lines = static_cast<int>(kByKey ? block.num_queries : block.num_keys);
  const int length = static_cast<int>(kByKey ? block.num_keys : block.num_queries);
  const int64_t line_stride = kByKey ? block.query_stride : block.key_stride;
  const int64_t stride = kByKey ? block.key_stride : block.query_stride;
  const int query = static_cast<int>(block.first_query), key = static_cast<int>(block.first_key);
  for (int line = 0; line < lines; ++line) {
    const auto run = [&](int at) __attribute__((always_inline)) {
      const int64_t offset = line * line_stride + at * stride;
      return kByKey ? Run{offset, query + line, key + at} : Run{offset, query + at, key + line};
    };
    int at = 0;
    for (; stride == 1 && at + kLong <= length; at += kLong) {
      change_run<kLong, kByKey>(scores, run(at), change);
    }
    for (; stride == 1 && at + kShort <= length; at += kShort) {
      change_run<kShort, kByKey>(scores, run(at), change);
    }
    for (; at < length; ++at) change_run<1, kByKey>(scores, run(at), change);
  }
}

// scores[at] = change(scores[at], at, query, key) for all of a block, the dense dimension
// innermost.
template <class T, class Change>
POLYHEAD_SCORE_MOD_INLINE void change_all(const ScoreBlock& block, T* scores,
                                          const Change& change) {
  block.key_stride == 1 ? change_lines<true>(block, scores, change)
                        : change_lines<false>(block, scores, change);
}

template <class T, class F>
POLYHEAD_SCORE_MOD_INLINE void change_as(const ScoreBlock& block, const F& f) {
  const int batch = static_cast<int>(block.batch), head = static_cast<int>(block.head);
  change_all(block, static_cast<T*>(block.scores),
             [&](T score, int64_t, int query, int key) __attribute__((always_inline)) {
               return static_cast<T>(f(score, batch, head, query, key));
             });
}

template <class T, class F>
POLYHEAD_SCORE_MOD_INLINE void differentiate_as(const ScoreBlock& block, const ScoreBlock& d_block,
                                                const F& f) {
  const int batch = static_cast<int>(block.batch), head = static_cast<int>(block.head);
  const T* scores = static_cast<const T*>(block.scores);
  const auto times_derivative = [&](T d_score, int64_t at, int query,
                                    int key) __attribute__((always_inline)) {
    return d_score * static_cast<T>(f.derivative(scores[at], batch, head, query, key));
  };
  change_all(d_block, static_cast<T*>(d_block.scores), times_derivative);
}

template <class F>
POLYHEAD_SCORE_MOD_INLINE void change(const ScoreBlock& block, void* context) {
  const F& f = *static_cast<const F*>(context);
  block.dtype == DType::kFloat32 ? change_as<float>(block, f) : change_as<double>(block, f);
}

template <class F>
POLYHEAD_SCORE_MOD_INLINE void differentiate(const ScoreBlock& block, const ScoreBlock& d_scores,
                                             void* context) {
  const F& f = *static_cast<const F*>(context);
  block.dtype == DType::kFloat32 ? differentiate_as<float>(block, d_scores, f)
                                 : differentiate_as<double>(block, d_scores, f);
}

// The functions of a ScoreMod, for the CPU that the program is compiled for.
template <class F>
struct Compiled {
  static void forward(const ScoreBlock& scores, void* context) { change<F>(scores, context); }
  static void backward(const ScoreBlock& scores, const ScoreBlock& d_scores, void* context) {
    differentiate<F>(scores, d_scores, context);
  }
};

#if defined(POLYHEAD_SCORE_MOD_FOR_AVX2)
template <class F>
struct CompiledForAvx2 {
  POLYHEAD_SCORE_MOD_FOR_AVX2 static void forward(const ScoreBlock& scores, void* context) {
    change<F>(scores, context);
  }
  POLYHEAD_SCORE_MOD_FOR_AVX2 static void backward(const ScoreBlock& scores,
                                                   const ScoreBlock& d_scores, void* context) {
    differentiate<F>(scores, d_scores, context);
  }
};
#endif

// The one that this CPU runs fastest, for `use`.
template <class F, class Use>
void with_compiled(const Use& use) {
#if defined(POLYHEAD_SCORE_MOD_FOR_AVX2)
  if (__builtin_cpu_supports("avx2")) return use(CompiledForAvx2<F>());
#endif
  use(Compiled<F>());
}

}  // namespace score_mod_detail

// A ScoreMod of an object that computes one score: f(score, batch, head, query, key). It may have
// two more functions: derivative, with the same arguments, of the result with respect to the score
// (for attention_backward), and is_empty(block). Kept by reference.
template <class F>
ScoreMod per_score(const F& f) {
  namespace detail = score_mod_detail;
  ScoreMod mod;
  mod.context = const_cast<void*>(static_cast<const void*>(&f));
  detail::with_compiled<F>([&](auto compiled) {
    using Functions = decltype(compiled);
    mod.forward = Functions::forward;
    if constexpr (requires { f.derivative(1.0F, 0, 0, 0, 0); }) mod.backward = Functions::backward;
  });
  if constexpr (requires(const ScoreBlock& block) { f.is_empty(block); }) {
    mod.is_empty = [](const ScoreBlock& block, void* context) {
      return static_cast<bool>(static_cast<const F*>(context)->is_empty(block));
    };
  }
  return mod;
}
template <class F>
ScoreMod per_score(const F&& f) = delete;  // would be gone before it is used

}  // namespace polyhead
#undef POLYHEAD_SCORE_MOD_FOR_AVX2
#undef POLYHEAD_SCORE_MOD_INLINE
#pragma GCC visibility pop
