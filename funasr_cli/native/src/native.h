/* The library's interface: a decoder of the Qwen3 kind on a CPU. Plain C, called through ctypes.
 *
 * Every pointer that is passed in is borrowed unless a comment says otherwise, and must stay valid as long as the
 * decoder lives. Functions that can fail return 0 on success and a negative number on failure (see FN_*).
 * One decoder may be used by one thread at a time; only fn_clear_slot may be called meanwhile, for a slot that is not
 * in use. In a child of fork(), a decoder of the parent computes in one thread, provided that it was idle at the fork.
 */
#ifndef FUNASR_NATIVE_H
#define FUNASR_NATIVE_H

#include <stddef.h>
#include <stdint.h>

#define FN_ABI 3
#define FN_EXPORT __attribute__((visibility("default")))

enum {
    FN_OK = 0,
    FN_NO_MEMORY = -1,
    FN_BAD_ARGUMENT = -2,       /* also a size that is not supported */
    FN_NO_INSTRUCTION_SET = -3, /* this CPU does not have it */
};

/* How the weights of a matrix are stored; FN_U8 adds an offset for each group where `has_offset` is 1. */
enum { FN_F32 = 0, FN_U8 = 1 };

/* Sizes of a decoder; names are those of its config.json. */
struct fn_shape {
    int32_t hidden_size, num_hidden_layers, num_attention_heads, num_key_value_heads;
    int32_t head_dim, intermediate_size, vocab_size, weights; /* weights: FN_F32 or FN_U8 */
    float rope_theta, rms_norm_eps;
};

/* A packed matrix; see pack.c for the layout. */
struct fn_matrix {
    const void *data;
    int32_t rows, columns; /* outputs, inputs */
    int32_t weights, has_offset;
};

/* One layer: four matrices, and the weights of its four norms in float32. */
struct fn_layer {
    struct fn_matrix qkv;     /* (heads + 2 kv_heads) * head_dim outputs: queries, keys, values */
    struct fn_matrix output;  /* hidden_size outputs */
    struct fn_matrix gate_up; /* 2 * intermediate_size outputs, 16 of the gate before the same 16 of up */
    struct fn_matrix down;    /* hidden_size outputs */
    const float *input_norm, *attention_norm; /* (hidden_size,) before attention, and before the feed-forward */
    const float *query_norm, *key_norm;       /* (head_dim,) */
};

typedef struct fn_decoder fn_decoder;

FN_EXPORT int fn_abi(void);

/* SHA-256 of the sources that the library was compiled from, in hexadecimal digits. */
FN_EXPORT const char *fn_sources(void);

/* Names of the instruction sets that this CPU has, best first; NULL at the end. */
FN_EXPORT const char *const *fn_instruction_sets(void);

/* Bytes of a packed matrix. */
FN_EXPORT size_t fn_packed_size(int32_t rows, int32_t columns, int32_t weights, int32_t has_offset);

/* Pack float32 values (rows, columns) as they are, or rounded to 8 bits in groups of 64. */
FN_EXPORT int fn_pack(void *packed, const float *values, int32_t rows, int32_t columns, int32_t weights);

/* Pack values (rows, columns) of 8 bits or fewer, w = scale * value + offset, with (rows, columns / group) scales
 * and offsets; a group is 64 values or a multiple of that. */
FN_EXPORT int fn_pack_affine(void *packed, const uint8_t *values, const float *scales, const float *offsets,
                             int32_t rows, int32_t columns, int32_t group);

/* Multiply a batch: x (n, columns) float32 -> out (n, rows). For tests and for layers outside a decoder. */
FN_EXPORT int fn_product(const struct fn_matrix *matrix, const float *x, int32_t n, float *out, int32_t threads,
                         const char *instruction_set);

/* Make a decoder, in *made; NULL there after a failure. `head` is also the table of embeddings unless `embeddings` is
 * another matrix. */
FN_EXPORT int fn_decoder_new(fn_decoder **made, const struct fn_shape *shape, const struct fn_layer *layers,
                             const float *final_norm, const struct fn_matrix *head,
                             const struct fn_matrix *embeddings, int32_t slots, int32_t threads,
                             const char *instruction_set);
FN_EXPORT void fn_decoder_free(fn_decoder *decoder);
FN_EXPORT const char *fn_decoder_instruction_set(const fn_decoder *decoder);

/* Look up embeddings: ids (n,) -> out (n, hidden_size). */
FN_EXPORT int fn_embed(const fn_decoder *decoder, const int32_t *ids, int32_t n, float *out);

/* Run the decoder over n pairs of a slot and a position. x is (n, hidden_size); each position must either follow
 * the last one stored in its slot or overwrite an earlier one, and positions of one slot ascend within a call. A
 * pair attends to positions 0 to its own. hidden (n, hidden_size), after the final norm, may be NULL. */
FN_EXPORT int fn_step(fn_decoder *decoder, int32_t n, const int32_t *slots, const int32_t *positions,
                      const float *x, float *hidden);

/* Compute logits of hidden states (n, hidden_size) -> (n, vocab_size); with them the likeliest token's id and its
 * log-probability, (n,) each. logits may be NULL. */
FN_EXPORT int fn_logits(fn_decoder *decoder, int32_t n, const float *hidden, float *logits, int32_t *ids,
                        float *logprobs);

/* Copy the first `length` positions of one slot to another, whose own positions are lost. */
FN_EXPORT int fn_copy_slot(fn_decoder *decoder, int32_t from, int32_t to, int32_t length);

/* Release the memory of a slot's positions. */
FN_EXPORT void fn_clear_slot(fn_decoder *decoder, int32_t slot);

#endif
