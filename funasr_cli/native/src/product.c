/* Products of a batch with a packed matrix, tile by tile. */

#include "internal.h"

#include <stdlib.h>

#define CHUNK_BYTES 65536 /* of weights: long beside the handing over of a chunk, short beside a whole matrix */

int tiles_a_chunk(const struct fn_matrix *m) {
    size_t tiles = CHUNK_BYTES / tile_size(m);
    return tiles > 1 ? (int)tiles : 1;
}

int operand_reserve(struct operand *x, int n, int columns, int weights) {
    size_t stride = (size_t)(weights == FN_U8 ? columns : whole_depth(columns) + DEPTH);
    size_t count = (size_t)n * stride, groups = count / GROUP;
    if (count > x->capacity) operand_free(x);
    x->columns = columns;
    x->stride = stride;
    if (count <= x->capacity) return FN_OK;
    x->values = aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64);
    if (weights == FN_BF16 && !(x->bfloats = aligned_alloc(64, (count * sizeof(uint16_t) + 63) / 64 * 64)))
        return FN_NO_MEMORY;
    if (weights == FN_U8) {
        x->rounded = aligned_alloc(64, (count + 63) / 64 * 64);
        x->scales = malloc(groups * sizeof(float));
        x->sums = malloc(groups * sizeof(int32_t));
        if (!x->rounded || !x->scales || !x->sums) return FN_NO_MEMORY;
    }
    x->capacity = x->values ? count : 0;
    return x->values ? FN_OK : FN_NO_MEMORY;
}

void operand_free(struct operand *x) {
    free(x->values);
    free(x->bfloats);
    free(x->rounded);
    free(x->scales);
    free(x->sums);
    *x = (struct operand){0};
}

void put(const struct kernels *k, int weights, const struct operand *x, int row, int column, const float *from, int n) {
    size_t at = (size_t)row * x->stride + (size_t)column;
    if (weights == FN_BF16) {
        int end = column + n, depth = whole_depth(x->columns);
        k->to_bfloat(from, n, x->bfloats + at);
        if (end == x->columns) memset(x->bfloats + at + n, 0, (size_t)(depth - end) * sizeof(uint16_t));
    } else if (weights == FN_U8) {
        for (int i = 0; i < n; i += GROUP)
            k->round_group(from + i, x->rounded + at + i, x->scales + at / GROUP + i / GROUP,
                           x->sums + at / GROUP + i / GROUP);
    } else if (from != x->values + at)
        memcpy(x->values + at, from, (size_t)n * sizeof(float));
}

void round_row(const struct kernels *k, int weights, const struct operand *x, int row) {
    put(k, weights, x, row, 0, row_of(x, row), x->columns);
}

void multiply_tile(const struct kernels *k, const struct fn_matrix *m, int tile, const struct operand *x, int first,
                   int n, float *out, size_t stride) {
    const uint8_t *data = (const uint8_t *)m->data + (size_t)tile * tile_size(m);
    if (m->weights == FN_U8) k->product_u8(data, m->has_offset, x, first, n, out, stride);
    else if (m->weights == FN_BF16) k->product_bf16((const uint16_t *)(const void *)data, x, first, n, out, stride);
    else k->product_f32((const float *)(const void *)data, x, first, n, out, stride);
}

struct product_job {
    const struct kernels *kernels;
    const struct fn_matrix *matrix;
    const struct operand *x;
    int n;
    float *out;
};

static void product_chunk(void *argument, int chunk) {
    const struct product_job *job = argument;
    int tiles = tiles_a_chunk(job->matrix), rows = job->matrix->rows;
    for (int tile = chunk * tiles; tile < (chunk + 1) * tiles && tile * TILE < rows; tile++) {
        float part[8 * TILE];
        for (int first = 0; first < job->n; first += 8) {
            int n = job->n - first < 8 ? job->n - first : 8, width = rows - tile * TILE;
            multiply_tile(job->kernels, job->matrix, tile, job->x, first, n, part, TILE);
            for (int row = 0; row < n; row++)
                for (int i = 0; i < TILE && i < width; i++)
                    job->out[(size_t)(first + row) * (size_t)rows + (size_t)(tile * TILE + i)] =
                        part[row * TILE + i];
        }
    }
}

int fn_product(const struct fn_matrix *matrix, const float *x, int32_t n, float *out, int32_t threads,
               const char *instruction_set) {
    const struct kernels *kernels = find_kernels(instruction_set);
    struct pool *pool = pool_new(threads);
    struct operand operand = {0};
    int status = pool ? FN_OK : FN_NO_MEMORY;
    if (n < 1 || (matrix->weights == FN_U8 && matrix->columns % GROUP)) status = FN_BAD_ARGUMENT;
    if (!kernels) status = FN_NO_INSTRUCTION_SET;
    if (!status) status = operand_reserve(&operand, n, matrix->columns, matrix->weights);
    if (!status) {
        for (int row = 0; row < n; row++)
            put(kernels, matrix->weights, &operand, row, 0, x + (size_t)row * (size_t)matrix->columns, matrix->columns);
        struct product_job job = {kernels, matrix, &operand, n, out};
        int per_chunk = tiles_a_chunk(matrix) * TILE;
        pool_run(pool, product_chunk, &job, (matrix->rows + per_chunk - 1) / per_chunk);
    }
    operand_free(&operand);
    pool_free(pool);
    return status;
}
