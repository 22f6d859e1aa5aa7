/* Products of a batch with a packed matrix, by pairs of tiles. */

#include "internal.h"

#include <stdlib.h>
#include <string.h>

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

void multiply_pair(const struct kernels *k, const struct fn_matrix *m, int pair, const struct operand *x,
                   int first, int n, float *out) {
    const void *data = (const uint8_t *)m->data + (size_t)pair * pair_size(m);
    if (m->weights == FN_U8) k->product_u8(data, m->has_offset, x, first, n, out);
    else k->product_f32(data, x, first, n, out);
}

struct product_job {
    const struct kernels *kernels;
    const struct fn_matrix *matrix;
    const struct operand *x;
    int n;
    float *out;
};

static void product_pair(void *argument, int pair) {
    const struct product_job *job = argument;
    int rows = job->matrix->rows, width = rows - pair * PAIR < PAIR ? rows - pair * PAIR : PAIR;
    float part[BLOCK_ROWS * PAIR];
    for (int first = 0; first < job->n; first += BLOCK_ROWS) {
        int n = block_rows(first, job->n);
        multiply_pair(job->kernels, job->matrix, pair, job->x, first, n, part);
        for (int row = 0; row < n; row++)
            memcpy(job->out + (size_t)(first + row) * (size_t)rows + (size_t)(pair * PAIR), part + row * PAIR,
                   (size_t)width * sizeof(float));
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
        pool_run(pool, product_pair, &job, pairs(matrix));
    }
    operand_free(&operand);
    pool_free(pool);
    return status;
}
