/* The library's interface: decoders of the kinds of Qwen3 and Whisper, and Transformer blocks over whole
 * sequences, on a CPU. Plain C, called through ctypes.
 *
 * Every pointer that is passed in is borrowed unless a comment says otherwise, and must stay valid as long as the
 * decoder lives. Functions that can fail return 0 on success and a negative number on failure (see FN_*).
 * One decoder or encoder may be used by one thread at a time; only fn_clear_slot may be called meanwhile, for a
 * slot that is not in use. In a child of fork(), those of the parent compute in one thread, provided that they
 * were idle at the fork.
 */
#ifndef FUNASR_NATIVE_H
#define FUNASR_NATIVE_H

#include <stddef.h>
#include <stdint.h>

#define FN_ABI 8
#define FN_EXPORT __attribute__((visibility("default")))

enum {
    FN_OK = 0,
    FN_NO_MEMORY = -1,
    FN_BAD_ARGUMENT = -2,       /* also a size that is not supported */
    FN_NO_INSTRUCTION_SET = -3, /* this CPU does not have it */
};

/* How the weights of a matrix are stored. FN_U8: 8 bits in groups of 64 with a scale in float32, and an offset
 * where `has_offset` is 1. FN_U4 and FN_U4_HALF: 4 bits in such groups, scales and offsets in bfloat16 or float16.
 * Inputs of a product are rounded, too: to bfloat16, or to 8 bits in groups for weights of 8 or 4. Sums are
 * float32. */
enum { FN_F32 = 0, FN_U8 = 1, FN_BF16 = 2, FN_U4 = 3, FN_U4_HALF = 4 };

/* A packed matrix; see internal.h for the layout. */
struct fn_matrix {
    const void *data;
    int32_t rows, columns; /* outputs, those of `below` included; inputs */
    int32_t weights, has_offset;
    /* The last rows, if they are stored in 4 bits and the others in 8, or the other way round; else NULL. What is
     * above them is whole pairs of tiles, a multiple of 32 rows. It may go on in the same way. */
    const struct fn_matrix *below;
};

/* A product with a bias, which may be NULL. */
struct fn_linear {
    struct fn_matrix matrix;
    const float *bias; /* (rows,) float32 */
};

enum { FN_LAYER_NORM = 0, FN_RMS_NORM = 1 };
struct fn_norm {
    const float *weights, *bias; /* (width,) each; an RMS norm has no bias */
    float eps;
    int32_t kind, width;
};

/* FN_SWIGLU: silu(gate) * up. The matrix has 16 outputs of the gate before the same 16 of up, the bias all of the
 * gate before all of up. FN_GELU is the exact one, with the error function. */
enum { FN_IDENTITY = 0, FN_RELU = 1, FN_GELU = 2, FN_SWIGLU = 3 };

FN_EXPORT int fn_abi(void);

/* SHA-256 of the sources that the library was compiled from, in hexadecimal digits. */
FN_EXPORT const char *fn_sources(void);

/* Names of the instruction sets that this CPU has, best first; NULL at the end. */
FN_EXPORT const char *const *fn_instruction_sets(void);

/* Bytes of a packed matrix. */
FN_EXPORT size_t fn_packed_size(int32_t rows, int32_t columns, int32_t weights, int32_t has_offset);

/* Pack float32 values (rows, columns) as they are, rounded to bfloat16, or rounded to 8 bits in groups of 64. Only
 * the last needs a multiple of 64 columns. */
FN_EXPORT int fn_pack(void *packed, const float *values, int32_t rows, int32_t columns, int32_t weights);

/* Pack values (rows, columns) of 8 bits or fewer, w = scale * value + offset, with (rows, columns / group) scales
 * and offsets; a group is 64 values or a multiple of that. */
FN_EXPORT int fn_pack_affine(void *packed, const uint8_t *values, const float *scales, const float *offsets,
                             int32_t rows, int32_t columns, int32_t group);

/* Pack values (rows, columns) of 4 bits or fewer in the same way as FN_U4 or FN_U4_HALF, with (rows, columns /
 * group) scales and offsets in bfloat16 or float16. */
FN_EXPORT int fn_pack_4_bits(void *packed, const uint8_t *values, const uint16_t *scales, const uint16_t *offsets,
                             int32_t rows, int32_t columns, int32_t group, int32_t weights);

/* Read rows of a packed matrix: numbers (n,) -> out (n, columns) float32. */
FN_EXPORT int fn_unpack(const struct fn_matrix *matrix, const int32_t *numbers, int32_t n, float *out);

/* Multiply a batch: x (n, columns) float32 -> out (n, rows). For tests. */
FN_EXPORT int fn_product(const struct fn_matrix *matrix, const float *x, int32_t n, float *out, int32_t threads,
                         const char *instruction_set);

/* --- decoders, which keep keys and values of earlier positions --- */

/* Sizes of a decoder; names are those of Qwen3's config.json. */
struct fn_shape {
    int32_t hidden_size, num_hidden_layers, num_attention_heads, num_key_value_heads;
    int32_t head_dim, intermediate_size, vocab_size;
    int32_t weights;    /* FN_F32; or FN_U8, then each matrix has 8 or 4 bits */
    int32_t activation; /* FN_SWIGLU without biases, or FN_GELU */
    float rope_theta;            /* of rotary positions; 0: none */
};

/* One layer. The norms of queries and keys may be absent, with weights NULL, and so may the cross-attention. */
struct fn_layer {
    struct fn_norm attention_norm, cross_norm, feed_forward_norm; /* (hidden_size,) */
    struct fn_norm query_norm, key_norm;                          /* (head_dim,), before the positions */
    struct fn_linear qkv;    /* (heads + 2 kv_heads) * head_dim outputs: queries, keys, values */
    struct fn_linear output; /* hidden_size outputs */
    struct fn_linear cross_query, cross_output;
    struct fn_linear up;   /* intermediate_size outputs, or twice that with FN_SWIGLU */
    struct fn_linear down; /* hidden_size outputs */
};

/* What the pairs of a step attend to besides the positions of their slots. */
struct fn_sources {
    /* Of each pair: those that fn_keys_and_values gives with the decoder's weights, layer after layer. */
    const uint8_t *const *keys_and_values;
    int32_t rows; /* of each source */
    int32_t watched_count;
    const int32_t *watched; /* heads, as layer * heads + head, whose scores before the softmax are returned in: */
    float *scores;          /* (watched_count, n, rows) */
};

typedef struct fn_decoder fn_decoder;

/* Make a decoder, in *made; NULL there after a failure. `head` is also the table of embeddings unless `embeddings`
 * is another matrix. */
FN_EXPORT int fn_decoder_new(fn_decoder **made, const struct fn_shape *shape, const struct fn_layer *layers,
                             const struct fn_norm *final_norm, const struct fn_matrix *head,
                             const struct fn_matrix *embeddings, int32_t slots, int32_t threads,
                             const char *instruction_set);
FN_EXPORT void fn_decoder_free(fn_decoder *decoder);
FN_EXPORT const char *fn_decoder_instruction_set(const fn_decoder *decoder);

/* Look up embeddings: ids (n,) -> out (n, hidden_size). */
FN_EXPORT int fn_embed(const fn_decoder *decoder, const int32_t *ids, int32_t n, float *out);

/* Run the decoder over n pairs of a slot and a position. x is (n, hidden_size); each position must either follow
 * the last one stored in its slot or overwrite an earlier one, and positions of one slot ascend within a call. A
 * pair attends to positions 0 to its own, and with cross-attention to its source. `sources` is NULL without that.
 * hidden (n, hidden_size), after the final norm, may be NULL. */
FN_EXPORT int fn_step(fn_decoder *decoder, int32_t n, const int32_t *slots, const int32_t *positions,
                      const float *x, const struct fn_sources *sources, float *hidden);

/* Compute logits of hidden states (n, hidden_size) -> (n, vocab_size); with them the likeliest token's id and its
 * log-probability, (n,) each. logits may be NULL. `excluded` (n, vocab_size) is 1 for tokens that get minus
 * infinity; NULL excludes none. With it, if the exponentials of row i from first_of_group[i] on have a sum above
 * the highest one before them, all before them get minus infinity, too; vocab_size: there is no such group. */
FN_EXPORT int fn_logits(fn_decoder *decoder, int32_t n, const float *hidden, const uint8_t *excluded,
                        const int32_t *first_of_group, float *logits, int32_t *ids, float *logprobs);

/* Copy the first `length` positions of one slot to another, whose own positions are lost. */
FN_EXPORT int fn_copy_slot(fn_decoder *decoder, int32_t from, int32_t to, int32_t length);

/* Release the memory of a slot's positions. */
FN_EXPORT void fn_clear_slot(fn_decoder *decoder, int32_t slot);

/* --- networks that see a whole sequence at once --- */

/* A Transformer layer over sequences that lie one after the other:
 *   x = x + output(attention(norm(x))) + memory     without "x +" where the norm's input has another width
 *   x = x + cross_output(cross_attention(norm(x), source))     only if cross_query has a matrix
 *   x = x + down(activation(up(norm(x))))
 * or, with norm_after, which excludes cross-attention and other widths:
 *   x = norm(x + output(attention(x)) + memory)
 *   x = norm(x + down(activation(up(x))))
 * All matrices store their weights in the same way, or in 8 or 4 bits. */
struct fn_block {
    struct fn_norm attention_norm, cross_norm, feed_forward_norm;
    struct fn_linear qkv, output; /* qkv: queries, keys, values below each other, a third of the outputs each */
    struct fn_linear cross_query, cross_key_value, cross_output;
    struct fn_linear up, down;
    const float *memory; /* (taps, width): a filter of each value over time, added to the value; NULL: none */
    int32_t taps, taps_before; /* the filter's length, and how much of it lies before the frame it belongs to */
    int32_t heads, activation, norm_after;
};

typedef struct fn_encoder fn_encoder;

/* Make an encoder, in *made; NULL there after a failure. It holds threads and working memory, and no weights. */
FN_EXPORT int fn_encoder_new(fn_encoder **made, int32_t threads, const char *instruction_set);
FN_EXPORT void fn_encoder_free(fn_encoder *encoder);
FN_EXPORT const char *fn_encoder_instruction_set(const fn_encoder *encoder);

/* Run one layer: x (frames, width before) -> out (frames, width), which may be x. Sequence i has the frames
 * offsets[i] to offsets[i + 1], at least one; offsets[0] is 0. Its cross-attention sees the rows source_offsets[i]
 * to source_offsets[i + 1] of `source`; both NULL for a layer without one. */
FN_EXPORT int fn_run_block(fn_encoder *encoder, const struct fn_block *block, int32_t sequences,
                           const int32_t *offsets, const float *x, const float *source,
                           const int32_t *source_offsets, float *out);

/* Compute activation(product + bias): x (n, columns) -> out (n, rows), or half of that with FN_SWIGLU. */
FN_EXPORT int fn_run_linear(fn_encoder *encoder, const struct fn_linear *linear, int32_t activation, int32_t n,
                            const float *x, float *out);

/* Bytes of the keys and values of a cross-attention; 0 if they are not supported. With FN_F32 they are float16,
 * with FN_U8 8 bits; head_dim is a multiple of 16 or, with FN_U8, of 64. */
FN_EXPORT size_t fn_source_size(int32_t heads, int32_t head_dim, int32_t rows, int32_t weights);

/* Compute keys and values of a cross-attention: x (n, columns) -> out, fn_source_size bytes. The matrix has 2 *
 * heads * head_dim outputs. */
FN_EXPORT int fn_keys_and_values(fn_encoder *encoder, const struct fn_linear *linear, int32_t heads, int32_t n,
                                 const float *x, int32_t weights, uint8_t *out);

/* Norm rows: x (n, width) -> out, which may be x. */
FN_EXPORT int fn_run_norm(fn_encoder *encoder, const struct fn_norm *norm, int32_t n, int32_t width,
                          const float *x, float *out);

/* For each row of (n, width): the first of its highest values, and the logarithm of its exponentials' sum. */
FN_EXPORT int fn_highest(fn_encoder *encoder, int32_t n, int32_t width, const float *x, int32_t *places,
                         float *log_totals);

/* --- networks for voices, in float32 --- */

/* How many floats lie between the images, lines and rows of an array. Rows of the input may overlap. */
struct fn_steps {
    int32_t image, line, row;
};

/* A convolution, as a sum of products with parts of the input:
 *   out[image, line, row] = activation(bias + added[image, line, row] + sum over parts of
 *                           matrix[:, part * depth : (part + 1) * depth] x[image, line, row, part : ... + depth])
 * where depth is columns / parts, and x[image, line, row, part] begins where the steps lead. So taps that lie side
 * by side in memory are one part. */
struct fn_convolution {
    struct fn_linear linear; /* FN_F32 */
    int32_t parts, part_step;
    int32_t activation; /* FN_IDENTITY or FN_RELU */
    int32_t images, lines, rows; /* of the output */
    struct fn_steps input, output;
};

/* Compute a convolution. `added` has the steps of the output; NULL: nothing is added. */
FN_EXPORT int fn_convolve(fn_encoder *encoder, const struct fn_convolution *convolution, const float *x,
                          const float *added, float *out);

/* A layer of a densely connected network over time, which reads the first values of a frame and writes the next:
 *   inner = relu(narrow(relu(x * factor + summand)))
 *   x[frame, width : width + outputs] = local(inner around the frame) * mask(context)
 *   mask(context) = sigmoid(gate(relu(squeeze(context))))
 * where the context is the mean of inner over all frames, plus that over the run of `run` frames that has the
 * frame. */
struct fn_dense_layer {
    const float *factor, *summand; /* (width,): a batch norm */
    struct fn_linear narrow;       /* width -> inner */
    struct fn_linear local;        /* three frames of inner, `dilation` apart, one after the other -> outputs */
    struct fn_linear squeeze, gate; /* inner -> any number -> outputs */
    int32_t dilation, run;
};

/* Run one layer: x (images, frames, stride). */
FN_EXPORT int fn_run_dense_layer(fn_encoder *encoder, const struct fn_dense_layer *layer, int32_t images,
                                 int32_t frames, int32_t stride, float *x);

#endif
