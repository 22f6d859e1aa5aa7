/* What the files of the library share: kernels by instruction set, the thread pool, the packed layout. */
#ifndef FUNASR_INTERNAL_H
#define FUNASR_INTERNAL_H

#include "native.h"

#define GROUP 64        /* inputs that share a scale, in weights and in activations */
#define TILE 16         /* outputs that are computed together */
#define PAGE 64         /* positions of a slot that are allocated together */
#define TINY 2e-36f     /* a group of smaller values counts as zeros: its scale is not a normal float32 */

/* A block of a packed FN_U8 matrix holds TILE outputs times GROUP inputs:
 *   uint8_t values[GROUP / 4][TILE][4];  w = scale * (value - 128) + offset
 *   float scales[TILE];
 *   float offsets[TILE];                 only where the matrix has offsets
 * The blocks of one tile follow each other, so that a product reads memory in order. */
#define BLOCK_VALUES (TILE * GROUP)
#define BLOCK_SCALES (TILE * (int)sizeof(float))

/* Ask for the weights some blocks after these: a processor's own prefetcher stops at each page of 4 kB. */
static inline void prefetch(const uint8_t *weights) { __builtin_prefetch(weights + 4 * (BLOCK_VALUES + BLOCK_SCALES)); }

static inline size_t block_size(int has_offset) {
    return BLOCK_VALUES + (size_t)BLOCK_SCALES * (has_offset ? 2 : 1);
}

/* Bytes of all blocks of one tile. */
static inline size_t tile_size(const struct fn_matrix *m) {
    if (m->weights == FN_F32) return (size_t)m->columns * TILE * sizeof(float);
    return (size_t)(m->columns / GROUP) * block_size(m->has_offset);
}

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
    /* One tile of a product, rows `first` to `first + n`: out[row * stride + output]. */
    void (*product_u8)(const uint8_t *tile, int has_offset, const struct operand *x, int first, int n, float *out,
                       size_t stride);
    void (*product_f32)(const float *tile, const struct operand *x, int first, int n, float *out, size_t stride);
    /* Multiply a query with n keys (n, d) in float16. */
    void (*scores)(const float *query, const uint16_t *keys, int n, int d, float *out);
    /* Add n values (n, d) in float16, times their weights, to out (d,). */
    void (*add_weighted)(const float *weights, const uint16_t *values, int n, int d, float *out);
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
extern const struct kernels kernels_avx2, kernels_avx512;
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

/* Outputs of a product that one chunk computes: about 64 kB of weights. */
int tiles_a_chunk(const struct fn_matrix *m);

/* Round rows of an operand, if the weights need it. */
void round_row(const struct kernels *k, int weights, const struct operand *x, int row);

/* Multiply rows `first` to `first + n` of x by one tile. */
void multiply_tile(const struct kernels *k, const struct fn_matrix *m, int tile, const struct operand *x, int first,
                   int n, float *out, size_t stride);

/* Allocate (n, columns) for a product; 0 or FN_NO_MEMORY. */
int operand_reserve(struct operand *x, int n, int columns, int weights);
void operand_free(struct operand *x);

#endif
