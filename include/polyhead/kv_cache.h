// The keys and values of a decoder's past, and attention over them.
//
//   KvCache cache({.batch = 2, .num_kv_heads = 8, .head_dim = 128, .num_pages = 64});
//   cache.append(key, value);                       // [B, Hkv, n, D] and Dv: n new positions each
//   attention_forward(query, cache, {.masks = {Mask::causal()}}, {.out = out});  // [B, H, L, D]
//
// A batch of sequences of unequal lengths. Their positions count from 0 and lie in pages of
// page_len positions, which come from one pool: memory is taken as sequences grow and given back as
// they are cut or forget. One page as long as the longest sequence is a contiguous cache.
//
// A row of the result has the same bits however its keys came here: in one append or many, in pages
// of any size, one query at a time or all at once. They are those that attention_forward gives for
// the whole sequences in tensors.
#pragma once

#include <cstdint>
#include <memory>

#include <polyhead/attention.h>
#include <polyhead/tensor_view.h>

#pragma GCC visibility push(default)
namespace polyhead {

class KvCache {
 public:
  struct Config {
    int64_t batch = 1;  // sequences
    int64_t num_kv_heads = 0, head_dim = 0;
    int64_t v_head_dim = 0;  // 0: head_dim
    DType dtype = DType::kFloat32;
    int64_t page_len = 256;  // positions, a multiple of 32
    int64_t num_pages = 0;   // of all sequences together
    // A position sees so many, itself included, and older ones are forgotten, by whole pages, as
    // others are appended. 0: all.
    int64_t window = 0;
  };

  // Takes the memory of all pages: 2 * num_pages * num_kv_heads * page_len * head_dim numbers if
  // v_head_dim is head_dim. Throws InvalidArgument or std::bad_alloc.
  explicit KvCache(const Config& config);
  ~KvCache();
  KvCache(KvCache&& other) noexcept;  // leaves `other` fit for destruction and assignment only
  KvCache& operator=(KvCache&& other) noexcept;

  const Config& config() const;                // v_head_dim filled in
  int64_t length(int64_t sequence) const;      // positions appended, forgotten ones included
  int64_t first_kept(int64_t sequence) const;  // position before which all is forgotten
  int64_t free_pages() const;

  // These change the cache or, where they throw (InvalidArgument, std::bad_alloc), nothing of it.
  // Not while another thread uses the cache.

  // The next positions: key [B, Hkv, n, D], value [B, Hkv, n, Dv], any strides. `lengths`, int32 or
  // int64 [B]: sequence b takes the first lengths[b] of the n; undefined: all.
  void append(const ConstTensorView& key, const ConstTensorView& value,
              const ConstTensorView& lengths = {});
  // Those of one sequence: [Hkv, n, D], [Hkv, n, Dv].
  void append(int64_t sequence, const ConstTensorView& key, const ConstTensorView& value);
  // Takes the positions from `length` on back, as a decoder does with guesses. Refused if those
  // that position `length` would see are forgotten.
  void truncate(int64_t sequence, int64_t length);
  void reset(int64_t sequence);  // to length 0, its pages free for others
  void reset();                  // all sequences

  struct State;

 private:
  friend void attention_forward(const ConstTensorView& query, const KvCache& cache,
                                const AttentionOptions& options, const AttentionOutputs& outputs);
  std::unique_ptr<State> state_;
};

// attention_forward with the sequences of a cache as keys and values. query [B, H, L, D]; S is the
// longest sequence's length, and each sequence is masked behind its own.
//
// The queries are the last L positions of each sequence, so append first. Positions are what masks
// compare: Mask::causal() and windows, with either alignment, see what each position may see; a
// number as offset, 0 too, places query 0 at that position, and the cache's window, if it has one,
// goes by it: then all masks by position have that number. With cu_seqlens_q, query [1, H, total,
// D], sequences have different numbers of queries, none included; cu_seqlens_k is not given, and
// segments and tensor masks cannot say another thing of each sequence's keys. A score_mod gets
// positions as its queries, whatever the masks' offsets are. Key lengths and dropout are refused.
//
// Throws InvalidArgument before any output is touched: as attention_forward, and if a sequence with
// queries is empty, has forgotten keys that they see or, where masks, the window or a score_mod
// compare positions, is shorter than they are. Safe from many threads.
void attention_forward(const ConstTensorView& query, const KvCache& cache,
                       const AttentionOptions& options, const AttentionOutputs& outputs);

}  // namespace polyhead
#pragma GCC visibility pop
