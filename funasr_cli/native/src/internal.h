/* What the files of the library share: kernels by instruction set, the thread pool, the packed layout. */
#ifndef FUNASR_INTERNAL_H
#define FUNASR_INTERNAL_H

#include "native.h"

#include <string.h>

#define GROUP 64        /* inputs that share a scale, in weights and in activations */
#define TILE 16         /* outputs of a tile: one register of AVX512 */
#define PAIR (2 * TILE) /* outputs that are computed together */
#define BLOCK_ROWS 16   /* rows of a product that share one reading of the weights */
#define PAGE 64         /* positions of a slot that are allocated together */
#define AHEAD 48        /* positions whose keys or values are asked for before they are read: memory is slow */
#define DEPTH 32        /* inputs of a bfloat16 product come in blocks of this size, padded with zeros */
#define TINY 2e-36f     /* a group of smaller values counts as zeros: its scale is not a normal float32 */

/* A block of a packed FN_U8 matrix holds PAIR outputs times GROUP inputs:
 *   uint8_t values[GROUP / 4][PAIR][4];  w = scale * (value - 128) + offset
 *   float scales[PAIR];
 *   float offsets[PAIR];                 only where the matrix has offsets
 * The blocks of one pair of tiles follow each other, so that a product reads memory in order.
 *
 * A block of an FN_U4 or FN_U4_HALF matrix holds as many in half of the bytes:
 *   uint8_t values[GROUP / 4][TILE][4];  of the pair's first tile in the lower 4 bits, of its second in the upper
 *   uint16_t scales[PAIR], offsets[PAIR];  w = scale * value + offset
 *
 * A pair of an FN_F32 matrix is float[columns][PAIR], of an FN_BF16 matrix uint16_t[columns / 2][PAIR][2], in
 * which columns are padded to a multiple of DEPTH: 16 pairs of inputs are what one tile register of AMX holds. */
#define BLOCK_VALUES (PAIR * GROUP)
#define BLOCK_SCALES (PAIR * (int)sizeof(float))
#define WIDE_BLOCK (BLOCK_VALUES + 2 * BLOCK_SCALES) /* bytes with offsets */
#define FOUR_BIT_BLOCK (WIDE_BLOCK / 2)

/* Place of one value within the values of its block. */
static inline int place(int output, int input) { return (input / 4 * PAIR + output) * 4 + input % 4; }

/* One value of a block of 4 bits. */
static inline int four_bits(const uint8_t *block, int output, int input) {
    return block[(input / 4 * TILE + output % TILE) * 4 + input % 4] >> (output < TILE ? 0 : 4) & 15;
}

/* Ask for the weights some blocks after these: a processor's own prefetcher stops at each page of 4 kB. */
static inline void prefetch(const uint8_t *weights) {
    __builtin_prefetch(weights + 4 * (BLOCK_VALUES + BLOCK_SCALES));
}

static inline size_t block_size(int has_offset) {
    return BLOCK_VALUES + (size_t)BLOCK_SCALES * (has_offset ? 2 : 1);
}

static inline int has_4_bits(int weights) { return weights == FN_U4 || weights == FN_U4_HALF; }

/* How the inputs of a product with such weights are rounded: as FN_F32, FN_BF16 or FN_U8. */
static inline int inputs_for(int weights) { return has_4_bits(weights) ? FN_U8 : weights; }

/* Inputs of a bfloat16 product, with its padding. */
static inline int whole_depth(int columns) { return (columns + DEPTH - 1) / DEPTH * DEPTH; }

/* Bytes of the weights of PAIR outputs. */
static inline size_t pair_size(const struct fn_matrix *m) {
    if (m->weights == FN_F32) return (size_t)m->columns * PAIR * sizeof(float);
    if (m->weights == FN_BF16) return (size_t)whole_depth(m->columns) * PAIR * sizeof(uint16_t);
    size_t groups = (size_t)(m->columns / GROUP);
    return groups * (has_4_bits(m->weights) ? FOUR_BIT_BLOCK : block_size(m->has_offset));
}

/* The part of a matrix that holds a pair, whose number becomes that within the part. */
static inline const struct fn_matrix *holding(const struct fn_matrix *m, int *pair) {
    for (; m->below && *pair >= (m->rows - m->below->rows) / PAIR; m = m->below)
        *pair -= (m->rows - m->below->rows) / PAIR;
    return m;
}

/* Number of pairs, whose missing rows are zero: a product is shared out in pairs of tiles. */
static inline int pairs(const struct fn_matrix *m) { return (m->rows + PAIR - 1) / PAIR; }

/* Round to the nearest bfloat16, to an even one in the middle of two. */
static inline uint16_t bfloat_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7FFFFFFF) > 0x7F800000) return (uint16_t)(bits >> 16 | 0x40); /* NaN */
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

static inline float from_bfloat(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* float16 by hand, since compilers before gcc 12 and clang 15 have no such type on x86. */
static inline float from_half(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 31, fraction = half & 1023;
    if (exponent == 0) return (sign ? -1.0f : 1.0f) * (float)fraction * 0x1p-24f; /* zero and subnormal */
    uint32_t bits = sign | (exponent == 31 ? 255 : exponent - 15 + 127) << 23 | fraction << 13;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The inputs of a product: n rows of `columns`, in float32 and, for other weights, rounded as those need it. Rows
 * are `stride` apart, which is no multiple of 4 kB except for 8 bits: the lines of 16 such rows would share a
 * place in the cache. */
struct operand {
    int columns;
    size_t stride, capacity; /* in values; capacity: of all rows */
    float *values;           /* (n, stride) */
    uint16_t *bfloats;       /* (n, stride), zeros up to whole_depth(columns) */
    int8_t *rounded;         /* (n, columns), x = scale * rounded */
    float *scales;           /* (n, columns / GROUP) */
    int32_t *sums;           /* (n, columns / GROUP), of the rounded values of a group */
};

/* The inner loops. Every instruction set gives the same integers, and floats within a few units of the last place.
 * What a row gives does not depend on the other rows. */
struct kernels {
    const char *name;
    /* Round a group of GROUP values to 8 bits: x = scale * rounded. The scale is NaN if a value is not finite. */
    void (*round_group)(const float *x, int8_t *rounded, float *scale, int32_t *sum);
    /* A pair of tiles times n rows from `first` on, at most BLOCK_ROWS: out (n, PAIR). */
    void (*product_u8)(const uint8_t *pair, int has_offset, const struct operand *x, int first, int n, float *out);
    void (*product_u4)(const uint8_t *pair, int is_half, const struct operand *x, int first, int n, float *out);
    void (*product_f32)(const float *pair, const struct operand *x, int first, int n, float *out);
    /* Multiply queries (count, d) with n keys (n, d) in float16: out[query * stride + key]. */
    void (*scores)(const float *queries, int count, const uint16_t *keys, int n, int d, float *out, size_t stride);
    /* Add n values (n, d) in float16, times weights[query * stride + value], to out (count, d). */
    void (*add_weighted)(const float *weights, size_t stride, int count, const uint16_t *values, int n, int d,
                         float *out);
    void (*to_half)(const float *x, int n, uint16_t *out);
    /* Return the largest of n values. */
    float (*maximum)(const float *x, int n);
    /* Write exp(x - peak) and return the sum; out may be x, or NULL for the sum alone. */
    float (*exponentials)(const float *x, int n, float peak, float *out);
    float (*sum_of_squares)(const float *x, int n);
    /* x * weights * factor */
    void (*scale_by)(const float *x, const float *weights, float factor, int n, float *out);
    void (*swiglu)(const float *gate, const float *up, int n, float *out);                   /* silu(gate) * up */
    /* As product_f32, of bfloat16. */
    void (*product_bf16)(const uint16_t *pair, const struct operand *x, int first, int n, float *out);
    void (*to_bfloat)(const float *x, int n, uint16_t *out);
    /* (x - mean) / sqrt(variance + eps) * weights + bias */
    void (*layer_norm)(const float *x, const float *weights, const float *bias, float eps, int n, float *out);
    void (*add)(const float *x, const float *y, int n, float *out);
    void (*add_products)(const float *x, const float *weights, int n, float *out); /* out + x * weights */
    void (*relu)(const float *x, int n, float *out);
    void (*gelu)(const float *x, int n, float *out); /* x / 2 * (1 + erf(x / sqrt(2))) */
};

/* For instruction sets that have nothing better. */
void product_bf16_plain(const uint16_t *pair, const struct operand *x, int first, int n, float *out);
void to_bfloat_plain(const float *x, int n, uint16_t *out);

extern const struct kernels kernels_scalar;
#if defined(__x86_64__)
extern const struct kernels kernels_avx2, kernels_avx512;
/* NULL if the compiler did not know the instructions. */
const struct kernels *kernels_avxvnni(void), *kernels_avx512bf16(void);
/* Those of AVX512 with the products of AMX; NULL also if tiles are missing, not granted or wrong. */
const struct kernels *kernels_amx(const struct kernels *avx512);
#elif defined(__aarch64__)
extern const struct kernels kernels_neon;
#endif

/* Return the kernels of this name, or the best this CPU has if it is NULL; NULL if the CPU does not have them. */
const struct kernels *find_kernels(const char *name);

/* A pool of threads that share out the chunks of one job after the other. */
struct pool;
struct pool *pool_new(int threads);
void pool_free(struct pool *pool);
typedef void (*pool_task)(void *job, int chunk);
void pool_run(struct pool *pool, pool_task task, void *job, int chunks);

/* Norm the values of a row; out may be x. */
void norm_row(const struct kernels *k, const struct fn_norm *norm, const float *x, float *out);

/* A row of an operand. */
static inline float *row_of(const struct operand *x, int row) { return x->values + (size_t)row * x->stride; }

/* Round a row of an operand, if the weights need it. */
void round_row(const struct kernels *k, int weights, const struct operand *x, int row);

/* Store n inputs of a row, from `column` on, in the type that the weights need. 8 bits need whole groups. */
void put(const struct kernels *k, int weights, const struct operand *x, int row, int column, const float *from,
         int n);

/* Whether a matrix has this number of inputs and can be multiplied with what is rounded for such weights. */
int can_multiply(const struct fn_matrix *m, int columns, int weights);

/* Multiply `n` rows of x, at most BLOCK_ROWS, `first` the first of them, by a pair of tiles: (n, PAIR). */
void multiply_pair(const struct kernels *k, const struct fn_matrix *m, int pair, const struct operand *x,
                   int first, int n, float *out);

/* The shape of a cross-attention's keys and values: `rows` positions of one layer; see source.c. */
struct source_shape {
    int heads, head_dim, rows, weights; /* FN_F32 keeps float16, FN_U8 8 bits */
};

int source_is_supported(const struct source_shape *s);

/* Columns of an operand for the scores of a row and a head. */
static inline int whole_groups(int rows) { return (rows + GROUP - 1) / GROUP * GROUP; }

/* Keep keys or values of a head: `number` counts the heads' keys, then their values. projected (rows, 2 * heads *
 * head_dim) float32, out: the whole layer. */
void keep_head(const struct kernels *k, const struct source_shape *s, int number, const float *projected,
               uint8_t *out);

/* Multiply a query (head_dim) with all keys of a head: scores (rows), with room for whole_groups. With FN_U8 it is
 * rounded in a row of `queries`, an operand (rows of it, head_dim). */
void source_scores(const struct kernels *k, const struct source_shape *s, const uint8_t *layer, int head,
                   const float *query, const struct operand *queries, int row, float *scores);

/* Replace scores, a row of an operand, by their exponentials; add the values weighted by these: out (head_dim). */
void source_mean(const struct kernels *k, const struct source_shape *s, const uint8_t *layer, int head,
                 const struct operand *scores, int row, float *out);

/* The number of rows in a block that begins with row `first` of n. */
static inline int block_rows(int first, int n) { return n - first < BLOCK_ROWS ? n - first : BLOCK_ROWS; }

/* Make room for (n, columns), for a product with such weights; 0 or FN_NO_MEMORY. An operand keeps to one type. */
int operand_reserve(struct operand *x, int n, int columns, int weights);
void operand_free(struct operand *x);

/* An encoder's working memory grows as it is needed. */
struct fn_encoder {
    const struct kernels *kernels;
    struct pool *pool;
    int weights;              /* what the operands are for */
    struct operand normed;    /* inputs of a product, after the norm */
    struct operand attended;  /* the attention's output */
    struct operand activated; /* between the feed-forward's products */
    struct operand source;    /* of a cross-attention */
    float *projected, *packed;
    size_t projected_count, packed_count;
};

/* Make room for `wanted` floats, whose values are lost; 0 or FN_NO_MEMORY. */
int grow(float **values, size_t *count, size_t wanted);

static inline int chunks_of(int n, int size) { return (n + size - 1) / size; }

/* Attention of queries to keys and values, all in float32; head h is at columns h * head_dim of each. Queries of
 * sequence i are the rows offsets[i] to offsets[i + 1], its keys and values the rows key_offsets[i] to
 * key_offsets[i + 1]. */
struct attention {
    const struct kernels *kernels;
    int sequences, heads, head_dim;
    const int32_t *offsets, *key_offsets;
    const float *queries, *keys, *values;
    size_t query_stride, key_stride; /* from row to row */
    float *packed;                   /* working memory: `attention_memory` floats */
    const struct operand *out;       /* (rows, heads * head_dim) */
};
size_t attention_memory(int heads, int head_dim, int sequences, const int32_t *key_offsets);
void run_attention(struct attention *a, struct pool *pool);

#endif
