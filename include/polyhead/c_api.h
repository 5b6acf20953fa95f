/* Polyhead from C (C99), and from anything that speaks C.
 *
 *   polyhead_load_options options = {.struct_size = sizeof options, .num_heads = 8,
 *                                    .layout = POLYHEAD_BATCH_FIRST};
 *   polyhead_mha* mha = NULL;
 *   if (polyhead_mha_load("layer.safetensors", &options, &mha) != POLYHEAD_OK)
 *     puts(polyhead_last_error());
 *   const int64_t shape[] = {2, 5, 64};
 *   polyhead_tensor x = {data, POLYHEAD_FLOAT32, 3, shape, NULL}, y = {result, ...};
 *   polyhead_mha_forward(mha, NULL, &x, &x, &x, &y, NULL);
 *   polyhead_mha_destroy(mha);
 *
 * What holds for every function:
 * - A failure is a status other than POLYHEAD_OK and a line in polyhead_last_error(); whatever the
 *   call was to write is untouched then. Nothing is printed, no exception leaves, and the process
 *   goes on, also when memory runs out.
 * - What the caller passes is read or written during the call and not kept. Strings end with 0.
 * - Option structs begin with struct_size, which the caller sets to sizeof. Zero is the default in
 *   every other field, reserved ones stay 0, and a null pointer to options means all defaults. A
 *   smaller struct, of an older header, has defaults in what it lacks. A larger one, of a newer
 *   header, is POLYHEAD_UNSUPPORTED if anything but 0 stands in what this library does not know.
 * - Flags are 0 or 1. Sizes and strides count elements.
 * - Safe from many threads at once, unless the function says otherwise.
 *
 * Numbers in this file never change their meaning; new ones are appended.
 */
/* over-budget: C has one header. */
#ifndef POLYHEAD_C_API_H
#define POLYHEAD_C_API_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

typedef int32_t polyhead_status;
enum {
  POLYHEAD_OK = 0,
  POLYHEAD_INVALID_ARGUMENT = 1, /* the caller's mistake: a null, a shape, a dtype, an option */
  POLYHEAD_UNSUPPORTED = 2,      /* valid, but not implemented here */
  POLYHEAD_FILE = 3,             /* cannot be read, is damaged, or cannot be written */
  POLYHEAD_MEMORY = 4,
  POLYHEAD_INTERNAL = 5 /* a defect of this library */
};

/* Of the last call that failed on this thread, "" if none did; successes leave it alone. Cut off
 * at 1023 bytes. Valid until the next failure on this thread. */
const char* polyhead_last_error(void);
/* "ok", "invalid argument", ...; "unknown status" for other numbers. Static. */
const char* polyhead_status_name(polyhead_status status);
const char* polyhead_version(void); /* "0.3.0". Static. */

enum { /* dtype */
       POLYHEAD_FLOAT32 = 0,
       POLYHEAD_FLOAT64 = 1,
       POLYHEAD_FLOAT16 = 2,
       POLYHEAD_BFLOAT16 = 3,
       POLYHEAD_BOOL = 4, /* one byte, 0 or 1 */
       POLYHEAD_INT32 = 5,
       POLYHEAD_INT64 = 6
};

/* The caller's memory. rank is 0 to 8; data is aligned to its dtype. An argument that is not
 * wanted is a null pointer to the tensor. Outputs must not overlap inputs, unless a function says
 * that they may. */
typedef struct polyhead_tensor {
  void* data;
  int32_t dtype;
  int32_t rank;
  const int64_t* shape;   /* [rank] */
  const int64_t* strides; /* [rank], or null: row-major */
} polyhead_tensor;

enum { POLYHEAD_TOP_LEFT = 0, POLYHEAD_BOTTOM_RIGHT = 1 }; /* causal_align: where queries stand */
enum { POLYHEAD_EMPTY_ZERO = 0, POLYHEAD_EMPTY_NAN = 1 };  /* empty_rows: every key masked */
enum { POLYHEAD_WEIGHTS_NONE = 0, POLYHEAD_WEIGHTS_AVERAGE = 1, POLYHEAD_WEIGHTS_PER_HEAD = 2 };

/* ---- Attention without a module ----
 * In shapes: B batch, H num_heads, L q_len, S kv_len, E embed_dim, D head_dim. */

enum { /* kind: query i, which stands at key p = i + query_offset, and key j */
       POLYHEAD_MASK_BOOLEAN = 0,
       POLYHEAD_MASK_ADDITIVE = 1,
       POLYHEAD_MASK_CAUSAL = 2,      /* sees it if j <= p */
       POLYHEAD_MASK_WINDOW = 3,      /* sees it if p - left <= j <= p + right */
       POLYHEAD_MASK_KEY_LENGTHS = 4, /* sees it if j < tensor[b] */
       POLYHEAD_MASK_ALIBI = 5,       /* has -tensor[h] * |p - j| added; no gradient */
       POLYHEAD_MASK_SEGMENTS = 6     /* sees it if tensor[i] == key_ids[j] */
};
enum { POLYHEAD_EXCLUDED = 0, POLYHEAD_INCLUDED = 1 }; /* what `true` in a boolean mask means */
enum { POLYHEAD_UNBOUNDED = -1 };                      /* left, right */

typedef struct polyhead_mask {
  size_t struct_size; /* the same in all masks of one call: it is the step from one to the next */
  /* Boolean (POLYHEAD_BOOL), additive: [L|1, S|1], [H|1, L|1, S|1] or [B|1, H|1, L|1, S|1]; key
   * lengths: int32 or int64 [B], packed: [N]; ALiBi: the slopes, float32 or float64 [H] or [B, H];
   * segments: the queries' ids, int32 or int64 [L] or [B, L]; else null */
  const polyhead_tensor* tensor;
  double factor;        /* additive: of what is added to the scaled scores; 0: 1 */
  int32_t kind;         /* POLYHEAD_MASK_... */
  int32_t sense;        /* boolean: POLYHEAD_EXCLUDED or POLYHEAD_INCLUDED */
  int32_t causal_align; /* causal, window, ALiBi; POLYHEAD_BOTTOM_RIGHT: the last query stands at
                           the last key of its batch item */
  int32_t reserved;
  const polyhead_tensor* key_ids; /* segments: as tensor, [S] or [B, S] */
  int64_t query_offset;           /* causal, window, ALiBi, under POLYHEAD_TOP_LEFT. Over a cache
                                     query 0 stands at it, but for 0: there at its position */
  int64_t left, right;            /* window: how many keys on each side, or POLYHEAD_UNBOUNDED */
} polyhead_mask;

/* Scores of some queries and keys of one head: that of query first_query + i and key first_key + j
 * is at scores[i * query_stride + j * key_stride]. */
typedef struct polyhead_score_block {
  void* scores;
  int64_t batch, head; /* batch: of a packed batch the sequence */
  int64_t first_query, first_key;
  int64_t num_queries, num_keys;
  int64_t query_stride, key_stride;
  int32_t dtype; /* the query's: POLYHEAD_FLOAT32 or POLYHEAD_FLOAT64 */
  int32_t reserved;
} polyhead_score_block;

/* A function of your own between scores and masks. It is called by several threads at once, and has
 * to give a pair's score the same result in whatever block it comes. */
typedef struct polyhead_score_mod {
  size_t struct_size;
  /* Changes the scores in place; -inf hides the pair. */
  void (*forward)(const polyhead_score_block* scores, void* context);
  /* Turns derivatives with respect to what forward left into those with respect to what it got, in
   * place; scores are what it got. Null: the backward is POLYHEAD_UNSUPPORTED. */
  void (*backward)(const polyhead_score_block* scores, const polyhead_score_block* d_scores,
                   void* context);
  /* 1 if forward hides the whole of a block, whose scores are null here; 0: not known. Or null. */
  int32_t (*is_empty)(const polyhead_score_block* block, void* context);
  void* context;
} polyhead_score_mod;

typedef struct polyhead_attention_options {
  size_t struct_size;
  const double* scale; /* null: 1 / sqrt(D) */
  const polyhead_mask* masks;
  size_t num_masks; /* at most 64 */
  const char* plan; /* null: the first that fits; else by its name in `polyhead info` */
  int32_t empty_rows;
  int32_t weights;  /* POLYHEAD_WEIGHTS_... */
  double dropout_p; /* of a pair of query and key; what is kept counts 1 / (1 - p) times */
  uint64_t seed;    /* which pairs: a function of seed, dropout_call, head, query and key */
  uint32_t dropout_call;
  int32_t reserved;
  double softcap; /* scaled scores become softcap * tanh(score / softcap); 0: they do not */
  const polyhead_score_mod* score_mod; /* after the softcap and before masks; or null */
  const polyhead_tensor* sinks;        /* [H], a score beside those of the keys, with no value */
  /* A packed batch, of batch 1: sequence n has the queries [cu_seqlens_q[n], cu_seqlens_q[n + 1])
   * and such keys. int32 or int64 [N + 1], from 0 to L and to S; without weights. Or both null. */
  const polyhead_tensor* cu_seqlens_q;
  const polyhead_tensor* cu_seqlens_k;
} polyhead_attention_options;

typedef struct polyhead_attention_outputs {
  size_t struct_size;
  const polyhead_tensor* out;      /* [B, H, L, Dv], any strides */
  const polyhead_tensor* lse;      /* [B, H, L] log of the sum of exp(scores), or null */
  const polyhead_tensor* weights;  /* [B, L, S] averaged, [B, H, L, S] per head, or null */
  const polyhead_tensor* lse_rest; /* [B, H, L] what rounding took from lse, or null */
} polyhead_attention_outputs;

/* out = softmax(scale * query . key^T + masks) . value
 * query [B, H, L, D], key [B, Hkv, S, D], value [B, Hkv, S, Dv], any strides; H is a multiple of
 * Hkv. All of one dtype, float32 or float64. */
polyhead_status polyhead_attention_forward(const polyhead_attention_options* options_or_null,
                                           const polyhead_tensor* query, const polyhead_tensor* key,
                                           const polyhead_tensor* value,
                                           const polyhead_attention_outputs* outputs);

/* What the forward of the same arguments wrote, and a loss's derivatives with respect to it. */
typedef struct polyhead_attention_backward_inputs {
  size_t struct_size;
  const polyhead_tensor* out;       /* [B, H, L, Dv] */
  const polyhead_tensor* lse;       /* [B, H, L] */
  const polyhead_tensor* d_out;     /* [B, H, L, Dv] */
  const polyhead_tensor* d_weights; /* as the weights; null: the loss does not see them */
  const polyhead_tensor* lse_rest;  /* [B, H, L], or null: of note where scores are far from 0 */
} polyhead_attention_backward_inputs;

/* Where derivatives with respect to inputs go, in their shapes: overwritten. Null: not wanted. */
typedef struct polyhead_attention_gradients {
  size_t struct_size;
  const polyhead_tensor* d_query;
  const polyhead_tensor* d_key;
  const polyhead_tensor* d_value;
  const polyhead_tensor* const* d_masks; /* null, or [num_masks]; of additive float masks only */
  const polyhead_tensor* d_sinks;
} polyhead_attention_gradients;

/* options: as in the forward; a plan is one of the backward's own. A hidden pair, and a row that
 * sees no key, has gradient 0. */
polyhead_status polyhead_attention_backward(const polyhead_attention_options* options_or_null,
                                            const polyhead_tensor* query,
                                            const polyhead_tensor* key,
                                            const polyhead_tensor* value,
                                            const polyhead_attention_backward_inputs* inputs,
                                            const polyhead_attention_gradients* gradients);

/* keep [B, H, L, S], POLYHEAD_BOOL: 1 for the pairs that dropout_p, seed and dropout_call leave. */
polyhead_status polyhead_attention_dropout_mask(const polyhead_attention_options* options,
                                                const polyhead_tensor* keep);

/* ---- The keys and values of a decoder's past ----
 * Sequences of a batch in pages of one pool: polyhead/kv_cache.h says more. A handle is the
 * caller's from create to destroy. What takes it as const runs from many threads at once, the
 * others only while no other call uses it. */

typedef struct polyhead_kv_cache polyhead_kv_cache;

typedef struct polyhead_kv_cache_config {
  size_t struct_size;
  int64_t batch; /* sequences; 0: 1 */
  int64_t num_kv_heads, head_dim;
  int64_t v_head_dim; /* 0: head_dim */
  int64_t page_len;   /* positions, a multiple of 32; 0: 256 */
  int64_t num_pages;  /* of all sequences together */
  int64_t window;     /* a position sees so many, and older ones are forgotten; 0: all */
  int32_t dtype;      /* float32 or float64 */
  int32_t reserved;
} polyhead_kv_cache_config;

/* Takes the memory of all pages. */
polyhead_status polyhead_kv_cache_create(const polyhead_kv_cache_config* config,
                                         polyhead_kv_cache** out);
void polyhead_kv_cache_destroy(polyhead_kv_cache* cache_or_null);
/* Fills in what fits in config->struct_size, defaults too. */
polyhead_status polyhead_kv_cache_get_config(const polyhead_kv_cache* cache,
                                             polyhead_kv_cache_config* config);
/* Positions appended to a sequence; the one before which all is forgotten; pages that are free. */
polyhead_status polyhead_kv_cache_length(const polyhead_kv_cache* cache, int64_t sequence,
                                         int64_t* out);
polyhead_status polyhead_kv_cache_first_kept(const polyhead_kv_cache* cache, int64_t sequence,
                                             int64_t* out);
polyhead_status polyhead_kv_cache_free_pages(const polyhead_kv_cache* cache, int64_t* out);
/* The next positions: key [B, Hkv, n, D], value [B, Hkv, n, Dv], any strides. lengths, int32 or
 * int64 [B]: sequence b takes the first lengths[b] of the n; null: all. A failure, as for want of
 * pages, leaves the cache as it was. */
polyhead_status polyhead_kv_cache_append(polyhead_kv_cache* cache, const polyhead_tensor* key,
                                         const polyhead_tensor* value,
                                         const polyhead_tensor* lengths_or_null);
/* Those of one sequence: [Hkv, n, D], [Hkv, n, Dv]. */
polyhead_status polyhead_kv_cache_append_sequence(polyhead_kv_cache* cache, int64_t sequence,
                                                  const polyhead_tensor* key,
                                                  const polyhead_tensor* value);
/* Takes the positions from length on back. */
polyhead_status polyhead_kv_cache_truncate(polyhead_kv_cache* cache, int64_t sequence,
                                           int64_t length);
polyhead_status polyhead_kv_cache_reset(polyhead_kv_cache* cache); /* all sequences, to length 0 */
polyhead_status polyhead_kv_cache_reset_sequence(polyhead_kv_cache* cache, int64_t sequence);
/* polyhead_attention_forward over the sequences: query [B, H, L, D] are their last L positions, so
 * append first, and out is [B, H, L, Dv]; S is the longest sequence's length. Options as there:
 * masks by position compare positions, and cu_seqlens_q, with query [1, H, total, D], gives
 * sequences different numbers of queries. Without cu_seqlens_k, key lengths and dropout. */
polyhead_status polyhead_kv_cache_attend(const polyhead_kv_cache* cache,
                                         const polyhead_attention_options* options_or_null,
                                         const polyhead_tensor* query,
                                         const polyhead_attention_outputs* outputs);

/* ---- torch.nn.MultiheadAttention ----
 * A handle is the caller's from load or create to destroy. Its forward, save and getters run from
 * many threads at once; set_parameter and destroy only while no other call uses the handle. */

typedef struct polyhead_mha polyhead_mha;

enum { POLYHEAD_BATCH_FIRST = 1, POLYHEAD_SEQUENCE_FIRST = 2 }; /* layout of 3-D inputs: say it */

/* A name in the file, and which of ours it is ("q_proj_weight", "out_proj.bias", ...). */
typedef struct polyhead_name {
  const char* theirs;
  const char* ours;
} polyhead_name;

enum { POLYHEAD_MAP_NONE = 0, POLYHEAD_MAP_BERT = 1, POLYHEAD_MAP_VIT = 2, POLYHEAD_MAP_LLAMA = 3 };

typedef struct polyhead_load_options {
  size_t struct_size;
  int64_t num_heads;          /* 0: the file's metadata has it; another is refused */
  const char* prefix;         /* null: found, if the file holds one module */
  const polyhead_name* names; /* [num_names], on top of the map */
  size_t num_names;           /* at most 4096 */
  double dropout;             /* 0: as the file's metadata says */
  int32_t layout;        /* must be said for polyhead_mha_load, here or by the file's metadata */
  int32_t map;           /* POLYHEAD_MAP_...: ready-made names */
  int32_t add_zero_attn; /* 0: as the file's metadata says */
  int32_t reserved;
  /* What tensors do not tell; 0: as the file's metadata says, of which another is refused. */
  double qk_norm_eps;
  double rope_base, rope_factor; /* as in polyhead_mha_config */
  double rope_low_freq_factor, rope_high_freq_factor;
  int64_t rope_rotary_dim, rope_original_length;
  int32_t rope_pairs, rope_scaling;
} polyhead_load_options;

/* One entry of a state dict, with torch's names and shapes. */
typedef struct polyhead_parameter {
  const char* name;
  polyhead_tensor tensor;
} polyhead_parameter;

typedef struct polyhead_mha_config {
  size_t struct_size;
  int64_t embed_dim, num_heads;
  int64_t kdim, vdim; /* 0: embed_dim */
  double dropout;     /* in training only */
  uint64_t seed;      /* of the initialisation */
  int32_t layout;     /* must be said */
  int32_t dtype;      /* float32 or float64 */
  int32_t no_bias, add_bias_kv, add_zero_attn;
  int32_t reserved;
  /* What torch's class has not: heads of key and value, 0: num_heads; their width, 0: embed_dim /
   * num_heads; an RMS norm of each head of query and key; then rotary positions (polyhead/rope.h),
   * of whose numbers 0 is the default. */
  int64_t num_kv_heads, head_dim;
  double qk_norm_eps;            /* 0: 1e-6 */
  double rope_base, rope_factor; /* 0: 10000, 1 */
  double rope_low_freq_factor, rope_high_freq_factor;
  int64_t rope_rotary_dim, rope_original_length;
  int32_t rope_pairs;   /* POLYHEAD_ROPE_...; 0: none */
  int32_t rope_scaling; /* POLYHEAD_ROPE_SCALING_... */
  int32_t qk_norm;
  int32_t reserved_too;
} polyhead_mha_config;

enum { POLYHEAD_ROPE_NONE = 0, POLYHEAD_ROPE_HALVES = 1, POLYHEAD_ROPE_INTERLEAVED = 2 };
enum {
  POLYHEAD_ROPE_SCALING_NONE = 0,
  POLYHEAD_ROPE_SCALING_LINEAR = 1,
  POLYHEAD_ROPE_SCALING_NTK = 2,
  POLYHEAD_ROPE_SCALING_LLAMA3 = 3
};

typedef struct polyhead_forward_options {
  size_t struct_size;
  const polyhead_tensor* attn_mask;        /* [L, S], [B*H, L, S] or [1|B, 1|H, 1|L, 1|S]; bool,
                                              true = hidden, or floats that are added; or null */
  const polyhead_tensor* key_padding_mask; /* [B, S], unbatched [S]; the same; or null */
  int32_t is_causal;                       /* besides the masks */
  int32_t causal_align;
  int32_t need_weights; /* POLYHEAD_WEIGHTS_..., as the weights that are passed */
  int32_t empty_rows;
  /* Of the first query and key, with rotary positions; equal under POLYHEAD_TOP_LEFT is_causal. */
  int64_t query_position, key_position;
} polyhead_forward_options;

/* From a safetensors file. *out receives the handle. */
polyhead_status polyhead_mha_load(const char* path, const polyhead_load_options* options_or_null,
                                  polyhead_mha** out);
/* Without parameters: torch's initialisation from the seed. With them: each parameter of the state
 * dict exactly once; their values are copied. */
polyhead_status polyhead_mha_create(const polyhead_mha_config* config,
                                    const polyhead_parameter* parameters_or_null,
                                    size_t num_parameters, polyhead_mha** out);
void polyhead_mha_destroy(polyhead_mha* mha_or_null);
/* query [B, L, E], key [B, S, kdim], value [B, S, vdim] -> out [B, L, E]; or sequence first, or
 * unbatched without B. weights [B, L, S'] or [B, H, L, S'], S' = S + add_bias_kv + add_zero_attn.
 * All of the module's dtype, any strides. Allocates nothing after the first call of a shape. */
polyhead_status polyhead_mha_forward(const polyhead_mha* mha,
                                     const polyhead_forward_options* options_or_null,
                                     const polyhead_tensor* query, const polyhead_tensor* key,
                                     const polyhead_tensor* value, const polyhead_tensor* out,
                                     const polyhead_tensor* weights_or_null);

typedef struct polyhead_cached_forward_options {
  size_t struct_size;
  /* int32 or int64 [B]: sequence b gets the first lengths[b] of the n tokens, and 0 in out for the
   * rest; null: all */
  const polyhead_tensor* lengths;
  int64_t sequence; /* the one whose tokens an unbatched query is */
} polyhead_cached_forward_options;

/* A decoder's step: the next tokens of the cache's sequences, a prompt or one token after the
 * other, are projected, turned at their positions, appended and attended to causally. query
 * [B, n, E] -> out [B, n, E], or sequence first, or unbatched without B, has the bits of a forward
 * over the whole sequences with is_causal. out may be query itself, which is read before. A failure
 * leaves the cache as it was. Not for modules with add_bias_kv or add_zero_attn, nor whose kdim or
 * vdim is not embed_dim. */
polyhead_status polyhead_mha_forward_cached(const polyhead_mha* mha,
                                            const polyhead_cached_forward_options* options_or_null,
                                            polyhead_kv_cache* cache, const polyhead_tensor* query,
                                            const polyhead_tensor* out);
/* That of a cache for the module: fills in what fits in config->struct_size, page_len and window
 * being defaults. POLYHEAD_INVALID_ARGUMENT for a module that cannot have one, and unless batch and
 * num_pages are at least 1. */
polyhead_status polyhead_mha_cache_config(const polyhead_mha* mha, int64_t batch, int64_t num_pages,
                                          polyhead_kv_cache_config* config);
/* Whole or not at all. prefix, null or "": put before each name. */
polyhead_status polyhead_mha_save(const polyhead_mha* mha, const char* path,
                                  const char* prefix_or_null);
/* Fills in what fits in config->struct_size; seed is 0. */
polyhead_status polyhead_mha_get_config(const polyhead_mha* mha, polyhead_mha_config* config);
/* The state dict in torch's order. Names, shapes and data belong to the handle and live as long;
 * data may be written to if polyhead_mha_repack follows. */
polyhead_status polyhead_mha_num_parameters(const polyhead_mha* mha, size_t* out);
polyhead_status polyhead_mha_parameter_at(const polyhead_mha* mha, size_t index,
                                          polyhead_parameter* out);
polyhead_status polyhead_mha_get_parameter(const polyhead_mha* mha, const char* name,
                                           polyhead_tensor* out);
/* Copies value in; shape and dtype must be the parameter's. */
polyhead_status polyhead_mha_set_parameter(polyhead_mha* mha, const char* name,
                                           const polyhead_tensor* value);

/* ---- The from-scratch class: q_linear, k_linear, v_linear, fc_out; batch first ----
 * As above, where nothing else is said. */

typedef struct polyhead_scratch polyhead_scratch;

enum { POLYHEAD_HEAD_SPLIT = 0, POLYHEAD_HEAD_FULL = 1 }; /* D = E / H, or D = E */

typedef struct polyhead_scratch_config {
  size_t struct_size;
  int64_t embed_size, num_heads;
  uint64_t seed;
  int32_t head_width; /* POLYHEAD_HEAD_... */
  int32_t dtype;
} polyhead_scratch_config;

typedef struct polyhead_scratch_forward_options {
  size_t struct_size;
  const polyhead_tensor* mask; /* any number type, broadcast onto [B, H, L, S]; times -1e5, added
                                  to the scores: 1 hides, softly; or null */
} polyhead_scratch_forward_options;

/* The layout in options is ignored; the head width is read from the file. */
polyhead_status polyhead_scratch_load(const char* path,
                                      const polyhead_load_options* options_or_null,
                                      polyhead_scratch** out);
polyhead_status polyhead_scratch_create(const polyhead_scratch_config* config,
                                        const polyhead_parameter* parameters_or_null,
                                        size_t num_parameters, polyhead_scratch** out);
void polyhead_scratch_destroy(polyhead_scratch* scratch_or_null);
/* query [B, L, E], key and value [B, S, E] -> out [B, L, E]; weights [B, L, S] or [B, H, L, S]. */
polyhead_status polyhead_scratch_forward(const polyhead_scratch* scratch,
                                         const polyhead_scratch_forward_options* options_or_null,
                                         const polyhead_tensor* query, const polyhead_tensor* key,
                                         const polyhead_tensor* value, const polyhead_tensor* out,
                                         const polyhead_tensor* weights_or_null);
polyhead_status polyhead_scratch_save(const polyhead_scratch* scratch, const char* path,
                                      const char* prefix_or_null);
polyhead_status polyhead_scratch_get_config(const polyhead_scratch* scratch,
                                            polyhead_scratch_config* config);
polyhead_status polyhead_scratch_num_parameters(const polyhead_scratch* scratch, size_t* out);
polyhead_status polyhead_scratch_parameter_at(const polyhead_scratch* scratch, size_t index,
                                              polyhead_parameter* out);
polyhead_status polyhead_scratch_get_parameter(const polyhead_scratch* scratch, const char* name,
                                               polyhead_tensor* out);
polyhead_status polyhead_scratch_set_parameter(polyhead_scratch* scratch, const char* name,
                                               const polyhead_tensor* value);

/* ---- Training ----
 * forward_training, then backward with the same context, then new values for the parameters:
 * through set_parameter, or written to the data that get_parameter gives, followed by repack. */

/* What a forward leaves for its backward. One call at a time may use it. */
typedef struct polyhead_training_context polyhead_training_context;

/* Where gradients come from and where they go: in the shapes of what they are the gradients of, of
 * the module's dtype. */
typedef struct polyhead_gradients {
  size_t struct_size;
  const polyhead_tensor* d_out;       /* the loss's derivatives with respect to the outputs: read */
  const polyhead_tensor* d_weights;   /* null: the loss does not depend on the weights */
  const polyhead_tensor* d_query;     /* these are overwritten; null: not wanted. Inputs of one */
  const polyhead_tensor* d_key;       /* shape may be given the same memory, which receives the */
  const polyhead_tensor* d_value;     /* sum: for self-attention three times the same */
  const polyhead_tensor* d_attn_mask; /* of a float mask; from scratch: of its mask */
  const polyhead_tensor* d_key_padding_mask;
  const polyhead_parameter* parameters; /* [num_parameters]: where those of these names go */
  size_t num_parameters;
  int32_t accumulate; /* 1: what the parameters' memory holds is added to */
  int32_t reserved;
} polyhead_gradients;

polyhead_status polyhead_training_context_create(polyhead_training_context** out);
void polyhead_training_context_destroy(polyhead_training_context* context_or_null);
/* Which weights the next forward drops: a function of seed and call, which starts at 0 and goes up
 * by one with each forward. With these numbers a run that continues draws what it would have.
 * p_or_null: how many, from now on; null: the configuration's dropout. */
polyhead_status polyhead_training_context_set_dropout(polyhead_training_context* context,
                                                      uint64_t seed, uint32_t call,
                                                      const double* p_or_null);
polyhead_status polyhead_training_context_get_dropout(const polyhead_training_context* context,
                                                      uint64_t* seed, uint32_t* call);
/* As polyhead_mha_forward, with the configuration's dropout. The data of query, key, value and
 * masks must stay as it is until the backward. */
polyhead_status polyhead_mha_forward_training(
    const polyhead_mha* mha, const polyhead_forward_options* options_or_null,
    const polyhead_tensor* query, const polyhead_tensor* key, const polyhead_tensor* value,
    const polyhead_tensor* out, const polyhead_tensor* weights_or_null,
    polyhead_training_context* context);
/* Of the last forward with this context, whose module and parameters must be the same still. */
polyhead_status polyhead_mha_backward(const polyhead_mha* mha,
                                      const polyhead_training_context* context,
                                      const polyhead_gradients* gradients);
/* After values have been written in place; as set_parameter, not while another call uses it. */
polyhead_status polyhead_mha_repack(polyhead_mha* mha);
polyhead_status polyhead_scratch_forward_training(
    const polyhead_scratch* scratch, const polyhead_scratch_forward_options* options_or_null,
    const polyhead_tensor* query, const polyhead_tensor* key, const polyhead_tensor* value,
    const polyhead_tensor* out, const polyhead_tensor* weights_or_null,
    polyhead_training_context* context);
polyhead_status polyhead_scratch_backward(const polyhead_scratch* scratch,
                                          const polyhead_training_context* context,
                                          const polyhead_gradients* gradients);
polyhead_status polyhead_scratch_repack(polyhead_scratch* scratch);

/* ---- What the library runs on ---- */

/* Threads that a call may use, its own included: 1 to 1024. Results do not depend on it. */
polyhead_status polyhead_set_num_threads(int32_t n);
polyhead_status polyhead_get_num_threads(int32_t* out);
/* "avx512", "avx2", "neon" or "baseline"; null if POLYHEAD_ISA names another. Valid until
 * the next call of it on this thread. */
const char* polyhead_isa(void);
/* Switches the whole process; not while another thread is inside the library. */
polyhead_status polyhead_force_isa(const char* name);

typedef void (*polyhead_parallel_task)(void* argument, size_t i);
typedef void (*polyhead_parallel_for)(void* context, size_t count, polyhead_parallel_task task,
                                      void* argument);
/* Lends the host's threads: parallel_for calls task(argument, i) once for each i < count, in any
 * order, on any threads, and returns when all are done. It must not fail. Null takes the loan
 * back. Not while another thread is inside the library. */
polyhead_status polyhead_lend_executor(polyhead_parallel_for parallel_for_or_null, void* context);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
