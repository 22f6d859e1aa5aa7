/* What the files of the library share: kernels by instruction set, the thread pool, the packed layout. */
#ifndef FUNASR_INTERNAL_H
#define FUNASR_INTERNAL_H

#include "native.h"

#define GROUP 64        /* inputs that share a scale, in weights and in activations */
#define TILE 16         /* outputs of a tile: one register of AVX512 */
#define PAIR (2 * TILE) /* outputs that are computed together */
#define BLOCK_ROWS 16   /* rows of a product that share one reading of the weights */
#define PAGE 64         /* positions of a slot that are allocated together */
#define TINY 2e-36f     /* a group of smaller values counts as zeros: its scale is not a normal float32 */

/* A block of a packed FN_U8 matrix holds PAIR outputs times GROUP inputs:
 *   uint8_t values[GROUP / 4][PAIR][4];  w = scale * (value - 128) + offset
 *   float scales[PAIR];
 *   float offsets[PAIR];                 only where the matrix has offsets
 * The blocks of one pair of tiles follow each other, so that a product reads memory in order. A pair of an FN_F32 matrix
 * is float values[columns][PAIR]. */
#define BLOCK_VALUES (PAIR * GROUP)
#define BLOCK_SCALES (PAIR * (int)sizeof(float))

/* Place of one value within the values of its block. */
static inline int place(int output, int input) { return (input / 4 * PAIR + output) * 4 + input % 4; }

/* Ask for the weights some blocks after these: a processor's own prefetcher stops at each page of 4 kB. */
static inline void prefetch(const uint8_t *weights) { __builtin_prefetch(weights + 4 * (BLOCK_VALUES + BLOCK_SCALES)); }

static inline size_t block_size(int has_offset) {
    return BLOCK_VALUES + (size_t)BLOCK_SCALES * (has_offset ? 2 : 1);
}

/* Bytes of the weights of PAIR outputs. */
static inline size_t pair_size(const struct fn_matrix *m) {
    if (m->weights == FN_F32) return (size_t)m->columns * PAIR * sizeof(float);
    return (size_t)(m->columns / GROUP) * block_size(m->has_offset);
}

/* Number of pairs, whose missing rows are zero: a product is shared out in pairs of tiles. */
static inline int pairs(const struct fn_matrix *m) { return (m->rows + PAIR - 1) / PAIR; }

/* The inputs of a product: n rows of `columns`, in float32 or, for FN_U8, also rounded to 8 bits. */
struct operand {
    int columns;
    float *values;   /* (n, columns) */
    int8_t *rounded; /* (n, columns), x = scale * rounded */
    float *scales;   /* (n, columns / GROUP) */
    int32_t *sums;   /* (n, columns / GROUP), of the rounded values of a group */
};

/* The inner loops. Every instruction set gives the same integers, and floats within a few units of the last place.
 * What a row gives does not depend on the other rows. */
struct kernels {
    const char *name;
    /* Round a group of GROUP values to 8 bits: x = scale * rounded. The scale is NaN if any value is not finite. */
    void (*round_group)(const float *x, int8_t *rounded, float *scale, int32_t *sum);
    /* A pair of tiles times n rows from `first` on, at most BLOCK_ROWS: out (n, PAIR). */
    void (*product_u8)(const uint8_t *pair, int has_offset, const struct operand *x, int first, int n, float *out);
    void (*product_f32)(const float *pair, const struct operand *x, int first, int n, float *out);
    /* Multiply queries (count, d) with n keys (n, d) in float16: out[query * stride + key]. */
    void (*scores)(const float *queries, int count, const uint16_t *keys, int n, int d, float *out, size_t stride);
    /* Add n values (n, d) in float16, times weights[query * stride + value], to out (count, d). */
    void (*add_weighted)(const float *weights, size_t stride, int count, const uint16_t *values, int n, int d, float *out);
    void (*to_half)(const float *x, int n, uint16_t *out);
    /* Return the largest of n values. */
    float (*maximum)(const float *x, int n);
    /* Write exp(x - peak) and return the sum; out may be x, or NULL for the sum alone. */
    float (*exponentials)(const float *x, int n, float peak, float *out);
    float (*sum_of_squares)(const float *x, int n);
    void (*scale_by)(const float *x, const float *weights, float factor, int n, float *out); /* x * weights * factor */
    void (*swiglu)(const float *gate, const float *up, int n, float *out);                   /* silu(gate) * up */
};

extern const struct kernels kernels_scalar;
#if defined(__x86_64__)
extern const struct kernels kernels_avx2, kernels_avxvnni, kernels_avx512;
const struct kernels *kernels_amx(void); /* NULL if tiles are missing, not granted or wrong; needs AVX512 */
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

/* Round rows of an operand, if the weights need it. */
void round_row(const struct kernels *k, int weights, const struct operand *x, int row);

/* Multiply `n` rows of x, at most BLOCK_ROWS, `first` the first of them, by a pair of tiles: (n, PAIR). */
void multiply_pair(const struct kernels *k, const struct fn_matrix *m, int pair, const struct operand *x, int first,
                   int n, float *out);

/* The number of rows in a block that begins with row `first` of n. */
static inline int block_rows(int first, int n) { return n - first < BLOCK_ROWS ? n - first : BLOCK_ROWS; }

/* Allocate (n, columns) for a product; 0 or FN_NO_MEMORY. */
int operand_reserve(struct operand *x, int n, int columns, int weights);
void operand_free(struct operand *x);

#endif
