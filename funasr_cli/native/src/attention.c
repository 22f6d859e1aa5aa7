/* Attention over whole sequences, in float32, as products: queries times keys, weights times values.
 *
 * Keys and values of each head are first copied into the layout of packed matrices. Then BLOCK_ROWS queries at a
 * time go over KEYS keys at a time, with the softmax of Milakov and Gimelshein 2018, "Online normalizer
 * calculation for softmax": when a higher score is found, the sums so far are scaled down. What a query gives
 * depends on its own sequence alone.
 */

#include "internal.h"

#include <math.h>

#define QUERIES 48 /* of a chunk */
#define KEYS 256

static int whole_pairs(int n) { return (n + PAIR - 1) / PAIR * PAIR; }

size_t attention_memory(int heads, int head_dim, int sequences, const int32_t *key_offsets) {
    size_t keys = (size_t)key_offsets[sequences] + (size_t)(PAIR - 1) * (size_t)sequences;
    return keys * (size_t)heads * 2 * (size_t)whole_pairs(head_dim);
}

/* Where the keys of a sequence and a head are packed: for each PAIR of them float[head_dim][PAIR]. Its values
 * follow: for each KEYS of them and each PAIR of columns float[KEYS][PAIR]. */
static float *packed_keys(const struct attention *a, int sequence, int head) {
    int length = a->key_offsets[sequence + 1] - a->key_offsets[sequence];
    size_t width = 2 * (size_t)whole_pairs(a->head_dim);
    size_t before = (size_t)a->key_offsets[sequence] + (size_t)(PAIR - 1) * (size_t)sequence;
    return a->packed + (before * (size_t)a->heads + (size_t)whole_pairs(length) * (size_t)head) * width;
}

static float *packed_values(const struct attention *a, int sequence, int head) {
    int length = a->key_offsets[sequence + 1] - a->key_offsets[sequence];
    return packed_keys(a, sequence, head) + (size_t)whole_pairs(length) * (size_t)whole_pairs(a->head_dim);
}

static void pack_head(void *argument, int chunk) {
    const struct attention *a = argument;
    int sequence = chunk / a->heads, head = chunk % a->heads, d = a->head_dim;
    int start = a->key_offsets[sequence], length = a->key_offsets[sequence + 1] - start;
    float *to = packed_keys(a, sequence, head), factor = 1.0f / sqrtf((float)d);
    const float *keys = a->keys + (size_t)start * a->key_stride + (size_t)(head * d);
    const float *values = a->values + (size_t)start * a->key_stride + (size_t)(head * d);
    for (int key = 0; key < whole_pairs(length); key++)
        for (int i = 0; i < d; i++)
            to[(size_t)(key / PAIR) * (size_t)(d * PAIR) + (size_t)(i * PAIR + key % PAIR)] =
                key < length ? keys[(size_t)key * a->key_stride + (size_t)i] * factor : 0.0f;
    to = packed_values(a, sequence, head);
    for (int first = 0; first < length; first += KEYS)
        for (int column = 0; column < whole_pairs(d); column += PAIR)
            for (int key = first; key < length && key < first + KEYS; key++)
                for (int i = column; i < column + PAIR; i++)
                    *to++ = i < d ? values[(size_t)key * a->key_stride + (size_t)i] : 0.0f;
}

/* At most BLOCK_ROWS queries of one sequence, from row `first` on, and one head. */
static void attend(const struct attention *a, int sequence, int head, int first, int n) {
    const struct kernels *k = a->kernels;
    int d = a->head_dim, length = a->key_offsets[sequence + 1] - a->key_offsets[sequence];
    float weights[BLOCK_ROWS * KEYS], part[BLOCK_ROWS * PAIR], peaks[BLOCK_ROWS], sums[BLOCK_ROWS];
    struct operand queries = {.columns = d, .stride = a->query_stride, .values = (float *)a->queries + head * d};
    struct operand weighted = {.stride = KEYS, .values = weights};
    const float *keys = packed_keys(a, sequence, head), *values = packed_values(a, sequence, head);
    for (int start = 0; start < length; start += KEYS) {
        int count = weighted.columns = length - start < KEYS ? length - start : KEYS;
        for (int key = 0; key < count; key += PAIR, keys += d * PAIR) {
            k->product_f32(keys, &queries, first, n, part);
            for (int row = 0; row < n; row++)
                memcpy(weights + row * KEYS + key, part + row * PAIR, PAIR * sizeof(float));
        }
        for (int row = 0; row < n; row++) {
            float *own = weights + row * KEYS, *out = row_of(a->out, first + row) + head * d,
                  peak = k->maximum(own, count);
            if (start == 0) {
                sums[row] = 0.0f;
                memset(out, 0, (size_t)d * sizeof(float));
            } else if (peak > peaks[row]) {
                float factor = expf(peaks[row] - peak);
                sums[row] *= factor;
                for (int i = 0; i < d; i++) out[i] *= factor;
            } else peak = peaks[row];
            peaks[row] = peak;
            sums[row] += k->exponentials(own, count, peak, own);
        }
        for (int column = 0; column < d; column += PAIR, values += count * PAIR) {
            k->product_f32(values, &weighted, 0, n, part);
            for (int row = 0; row < n; row++) {
                float *out = row_of(a->out, first + row) + head * d + column;
                k->add(out, part + row * PAIR, d - column < PAIR ? d - column : PAIR, out);
            }
        }
    }
    for (int row = 0; row < n; row++) {
        float *out = row_of(a->out, first + row) + head * d;
        for (int i = 0; i < d; i++) out[i] /= sums[row];
    }
}

static void attend_rows(void *argument, int chunk) {
    const struct attention *a = argument;
    int head = chunk % a->heads, row = chunk / a->heads * QUERIES, end = row + QUERIES, sequence = 0;
    if (end > a->offsets[a->sequences]) end = a->offsets[a->sequences];
    while (row < end) {
        while (a->offsets[sequence + 1] <= row) sequence++;
        int last = a->offsets[sequence + 1] < end ? a->offsets[sequence + 1] : end;
        int n = block_rows(row, last);
        attend(a, sequence, head, row, n);
        row += n;
    }
}

void run_attention(struct attention *a, struct pool *pool) {
    int blocks = (a->offsets[a->sequences] + QUERIES - 1) / QUERIES;
    pool_run(pool, pack_head, a, a->sequences * a->heads);
    pool_run(pool, attend_rows, a, blocks * a->heads);
}
