/* Keys and values of a cross-attention, which rows of a decoder read at each step: their size sets its pace.
 *
 * A layer holds the keys and values of one head after the other, in the order in which they are read. With FN_F32
 * weights they are float16, (rows, head_dim) each. With FN_U8 weights they are packed matrices of 8 bits, each
 * times one row of inputs:
 *   keys   (rows, head_dim)           times a query, which is rounded to 8 bits as other inputs are
 *   values (head_dim, whole_groups)   times the exponentials of the scores, rounded in groups of 64 positions
 */

#include "internal.h"

#include <string.h>

#define KEYS 0
#define VALUES 1

static struct fn_matrix matrix_of(const struct source_shape *s, int which) {
    int is_values = which == VALUES;
    return (struct fn_matrix){.rows = is_values ? s->head_dim : s->rows,
                              .columns = is_values ? whole_groups(s->rows) : s->head_dim,
                              .weights = FN_U8};
}

/* Bytes of the keys or values of a head. */
static size_t part_size(const struct source_shape *s, int which) {
    if (s->weights != FN_U8) return (size_t)s->rows * (size_t)s->head_dim * sizeof(uint16_t);
    struct fn_matrix m = matrix_of(s, which);
    return (size_t)pairs(&m) * pair_size(&m);
}

/* Where the keys or values of a head begin, in bytes. */
static size_t part_place(const struct source_shape *s, int which, int head) {
    size_t keys = part_size(s, KEYS);
    return (size_t)head * (keys + part_size(s, VALUES)) + (which == VALUES ? keys : 0);
}

int source_is_supported(const struct source_shape *s) {
    int whole = s->weights == FN_U8 ? GROUP : TILE;
    return s->heads > 0 && s->rows > 0 && s->head_dim > 0 && s->head_dim % whole == 0 &&
           (s->weights == FN_U8 || s->weights == FN_F32);
}

size_t fn_source_size(int32_t heads, int32_t head_dim, int32_t rows, int32_t weights) {
    struct source_shape s = {heads, head_dim, rows, weights};
    return source_is_supported(&s) ? part_place(&s, KEYS, heads) : 0;
}

/* Round PAIR outputs of GROUP inputs to a block of 8 bits. */
static void pack_block(const struct kernels *k, const float values[PAIR][GROUP], uint8_t *block) {
    for (int output = 0; output < PAIR; output++) {
        int8_t rounded[GROUP];
        int32_t sum;
        k->round_group(values[output], rounded, (float *)(void *)(block + BLOCK_VALUES) + output, &sum);
        for (int i = 0; i < GROUP; i += 4) {
            uint32_t four;
            memcpy(&four, rounded + i, sizeof four);
            four ^= 0x80808080; /* plus 128 */
            memcpy(block + place(output, i), &four, sizeof four);
        }
    }
}

/* Keys of a head, from x (rows, stride). */
static void pack_keys(const struct kernels *k, const struct source_shape *s, const float *x, size_t stride,
                      uint8_t *out) {
    for (int first = 0; first < s->rows; first += PAIR)
        for (int column = 0; column < s->head_dim; column += GROUP, out += block_size(0)) {
            float values[PAIR][GROUP] = {0};
            for (int i = 0; i < PAIR && first + i < s->rows; i++)
                memcpy(values[i], x + (size_t)(first + i) * stride + column, sizeof values[i]);
            pack_block(k, values, out);
        }
}

/* Values of a head, whose positions are the inputs. */
static void pack_values(const struct kernels *k, const struct source_shape *s, const float *x, size_t stride,
                        uint8_t *out) {
    for (int first = 0; first < s->head_dim; first += PAIR)
        for (int row = 0; row < s->rows; row += GROUP, out += block_size(0)) {
            float values[PAIR][GROUP] = {0};
            for (int i = 0; i < GROUP && row + i < s->rows; i++)
                for (int output = 0; output < PAIR; output++)
                    values[output][i] = x[(size_t)(row + i) * stride + (size_t)(first + output)];
            pack_block(k, values, out);
        }
}

void keep_head(const struct kernels *k, const struct source_shape *s, int number, const float *projected,
               uint8_t *out) {
    int which = number / s->heads;
    size_t stride = (size_t)(2 * s->heads * s->head_dim), head_dim = (size_t)s->head_dim;
    const float *x = projected + (size_t)number * head_dim;
    out += part_place(s, which, number % s->heads);
    if (s->weights == FN_U8) {
        if (which == KEYS) pack_keys(k, s, x, stride, out);
        else pack_values(k, s, x, stride, out);
        return;
    }
    uint16_t *halves = (uint16_t *)(void *)out;
    for (size_t row = 0; row < (size_t)s->rows; row++)
        k->to_half(x + row * stride, s->head_dim, halves + row * head_dim);
}

/* A row of the operand times a packed matrix, whose outputs are whole pairs of tiles. */
static void multiply_row(const struct kernels *k, const struct source_shape *s, int which, const uint8_t *data,
                         const struct operand *x, int row, float *out) {
    struct fn_matrix m = matrix_of(s, which);
    m.data = data;
    for (int pair = 0; pair < pairs(&m); pair++) multiply_pair(k, &m, pair, x, row, 1, out + pair * PAIR);
}

void source_scores(const struct kernels *k, const struct source_shape *s, const uint8_t *layer, int head,
                   const float *query, const struct operand *queries, int row, float *scores) {
    const uint8_t *keys = layer + part_place(s, KEYS, head);
    if (s->weights == FN_U8) {
        put(k, FN_U8, queries, row, 0, query, s->head_dim);
        multiply_row(k, s, KEYS, keys, queries, row, scores);
    } else
        k->scores(query, 1, (const uint16_t *)(const void *)keys, s->rows, s->head_dim, scores, (size_t)s->rows);
}

void source_mean(const struct kernels *k, const struct source_shape *s, const uint8_t *layer, int head,
                 const struct operand *scores, int row, float *out) {
    const uint8_t *values = layer + part_place(s, VALUES, head);
    float *shares = row_of(scores, row);
    float sum = k->exponentials(shares, s->rows, k->maximum(shares, s->rows), shares);
    if (s->weights == FN_U8) {
        memset(shares + s->rows, 0, (size_t)(whole_groups(s->rows) - s->rows) * sizeof(float));
        round_row(k, FN_U8, scores, row);
        multiply_row(k, s, VALUES, values, scores, row, out);
    } else {
        memset(out, 0, (size_t)s->head_dim * sizeof(float));
        k->add_weighted(shares, (size_t)s->rows, 1, (const uint16_t *)(const void *)values, s->rows, s->head_dim,
                        out);
    }
    for (int i = 0; i < s->head_dim; i++) out[i] /= sum;
}
