/* Products of a batch with a packed matrix, tile by tile. */

#include "internal.h"

#include <stdlib.h>

#define CHUNK_BYTES 65536 /* of weights: long beside the handing over of a chunk, short beside a whole matrix */

int tiles_a_chunk(const struct fn_matrix *m) {
    size_t tiles = CHUNK_BYTES / tile_size(m);
    return tiles > 1 ? (int)tiles : 1;
}

int operand_reserve(struct operand *x, int n, int columns, int weights) {
    size_t count = (size_t)n * (size_t)columns, groups = count / GROUP;
    operand_free(x);
    x->columns = columns;
    x->values = aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64);
    if (weights == FN_U8) {
        x->rounded = aligned_alloc(64, (count + 63) / 64 * 64);
        x->scales = malloc(groups * sizeof(float));
        x->sums = malloc(groups * sizeof(int32_t));
        if (!x->rounded || !x->scales || !x->sums) return FN_NO_MEMORY;
    }
    return x->values ? FN_OK : FN_NO_MEMORY;
}

void operand_free(struct operand *x) {
    free(x->values);
    free(x->rounded);
    free(x->scales);
    free(x->sums);
    *x = (struct operand){0};
}

void round_row(const struct kernels *k, int weights, const struct operand *x, int row) {
    if (weights != FN_U8) return;
    int groups = x->columns / GROUP;
    for (int group = 0; group < groups; group++) {
        size_t at = (size_t)row * (size_t)groups + (size_t)group;
        k->round_group(x->values + at * GROUP, x->rounded + at * GROUP, x->scales + at, x->sums + at);
    }
}

void multiply_tile(const struct kernels *k, const struct fn_matrix *m, int tile, const struct operand *x, int first,
                   int n, float *out, size_t stride) {
    const uint8_t *data = (const uint8_t *)m->data + (size_t)tile * tile_size(m);
    if (m->weights == FN_U8) k->product_u8(data, m->has_offset, x, first, n, out, stride);
    else k->product_f32((const float *)data, x, first, n, out, stride);
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
    if (n < 1 || matrix->columns % GROUP) status = FN_BAD_ARGUMENT;
    if (!kernels) status = FN_NO_INSTRUCTION_SET;
    if (!status) status = operand_reserve(&operand, n, matrix->columns, matrix->weights);
    if (!status) {
        for (size_t i = 0; i < (size_t)n * (size_t)matrix->columns; i++) operand.values[i] = x[i];
        for (int row = 0; row < n; row++) round_row(kernels, matrix->weights, &operand, row);
        struct product_job job = {kernels, matrix, &operand, n, out};
        int per_chunk = tiles_a_chunk(matrix) * TILE;
        pool_run(pool, product_chunk, &job, (matrix->rows + per_chunk - 1) / per_chunk);
    }
    operand_free(&operand);
    pool_free(pool);
    return status;
}
