/* Norms of rows, and products of a batch with a packed matrix, by pairs of tiles. */

#include "internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void norm_row(const struct kernels *k, const struct fn_norm *norm, const float *x, float *out) {
    int width = norm->width;
    if (norm->kind == FN_LAYER_NORM) k->layer_norm(x, norm->weights, norm->bias, norm->eps, width, out);
    else {
        float mean_square = k->sum_of_squares(x, width) / (float)width;
        k->scale_by(x, norm->weights, 1.0f / sqrtf(mean_square + norm->eps), width, out);
    }
}

int operand_reserve(struct operand *x, int n, int columns, int weights) {
    int has_8_bits = inputs_for(weights) == FN_U8;
    size_t stride = (size_t)(has_8_bits ? columns : whole_depth(columns) + DEPTH);
    size_t count = (size_t)n * stride, groups = count / GROUP;
    if (count > x->capacity) operand_free(x);
    x->columns = columns;
    x->stride = stride;
    if (count <= x->capacity) return FN_OK;
    x->values = aligned_alloc(64, (count * sizeof(float) + 63) / 64 * 64);
    if (weights == FN_BF16 && !(x->bfloats = aligned_alloc(64, (count * sizeof(uint16_t) + 63) / 64 * 64)))
        return FN_NO_MEMORY;
    if (has_8_bits) {
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

void put(const struct kernels *k, int weights, const struct operand *x, int row, int column, const float *from,
         int n) {
    size_t at = (size_t)row * x->stride + (size_t)column;
    if (weights == FN_BF16) {
        int end = column + n, depth = whole_depth(x->columns);
        k->to_bfloat(from, n, x->bfloats + at);
        if (end == x->columns) memset(x->bfloats + at + n, 0, (size_t)(depth - end) * sizeof(uint16_t));
    } else if (inputs_for(weights) == FN_U8) {
        for (int i = 0; i < n; i += GROUP)
            k->round_group(from + i, x->rounded + at + i, x->scales + at / GROUP + i / GROUP,
                           x->sums + at / GROUP + i / GROUP);
    } else if (from != x->values + at)
        memcpy(x->values + at, from, (size_t)n * sizeof(float));
}

void round_row(const struct kernels *k, int weights, const struct operand *x, int row) {
    put(k, weights, x, row, 0, row_of(x, row), x->columns);
}

int can_multiply(const struct fn_matrix *m, int columns, int weights) {
    if (!m->data || m->rows < 1 || columns < 1 || m->columns != columns) return 0;
    if (m->weights < FN_F32 || m->weights > FN_U4_HALF) return 0;
    if (inputs_for(m->weights) != inputs_for(weights)) return 0;
    if (inputs_for(weights) == FN_U8 ? columns % GROUP : m->has_offset) return 0;
    if (!m->below) return 1;
    int own = m->rows - m->below->rows;
    return own > 0 && own % PAIR == 0 && can_multiply(m->below, columns, weights);
}

void multiply_pair(const struct kernels *k, const struct fn_matrix *m, int pair, const struct operand *x,
                   int first, int n, float *out) {
    m = holding(m, &pair);
    const void *data = (const uint8_t *)m->data + (size_t)pair * pair_size(m);
    if (m->weights == FN_U8) k->product_u8(data, m->has_offset, x, first, n, out);
    else if (has_4_bits(m->weights)) k->product_u4(data, m->weights == FN_U4_HALF, x, first, n, out);
    else if (m->weights == FN_BF16) k->product_bf16(data, x, first, n, out);
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
    if (n < 1 || !can_multiply(matrix, matrix->columns, matrix->weights)) status = FN_BAD_ARGUMENT;
    if (!kernels) status = FN_NO_INSTRUCTION_SET;
    if (!status) status = operand_reserve(&operand, n, matrix->columns, matrix->weights);
    if (!status) {
        for (int row = 0; row < n; row++)
            put(kernels, matrix->weights, &operand, row, 0, x + (size_t)row * (size_t)matrix->columns,
                matrix->columns);
        struct product_job job = {kernels, matrix, &operand, n, out};
        pool_run(pool, product_pair, &job, pairs(matrix));
    }
    operand_free(&operand);
    pool_free(pool);
    return status;
}
