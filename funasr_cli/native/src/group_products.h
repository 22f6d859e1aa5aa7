/* Products with weights of 8 and 4 bits. Each file of kernels includes this after its own `rows_u8`, which
 * multiplies one block of 8 bits, and `read_halves`.
 *
 * A block of 4 bits is turned into one of 8 bits, once for all rows, and then computed as those are. So 4-bit
 * weights give bit by bit what the same weights in 8 bits do. The turned block is in the first-level cache:
 * reading memory is what takes time in a step, and there are half as many bytes to read.
 */
#ifndef FUNASR_GROUP_PRODUCTS_H
#define FUNASR_GROUP_PRODUCTS_H

#include "internal.h"

/* block: of FN_U4, or of FN_U4_HALF if `is_half`; out: of FN_U8 with offsets, whose values are 128 too large. */
static inline __attribute__((always_inline)) void widen(const uint8_t *block, int is_half, uint8_t *out) {
    const uint16_t *scales = (const uint16_t *)(const void *)(block + BLOCK_VALUES / 2); /* and offsets */
    float *wide = (float *)(void *)(out + BLOCK_VALUES);
    for (int four = 0; four < GROUP / 4; four++, block += 4 * TILE, out += 4 * PAIR) {
        prefetch(block);
        for (int i = 0; i < 4 * TILE; i++) out[i] = (block[i] & 15) | 128;
        for (int i = 0; i < 4 * TILE; i++) out[4 * TILE + i] = block[i] >> 4 | 128;
    }
    prefetch(block);
    prefetch(block + 64);
    if (is_half) read_halves(scales, 2 * PAIR, wide);
    else
        for (int i = 0; i < 2 * PAIR; i++) wide[i] = from_bfloat(scales[i]);
}

/* One pass over the weights, group by group. */
static void product_u8(const uint8_t *pair, int has_offset, const struct operand *x, int first, int n,
                       float *out) {
    size_t groups = (size_t)x->columns / GROUP;
    memset(out, 0, (size_t)(n * PAIR) * sizeof(float));
    for (size_t group = 0; group < groups; group++, pair += block_size(has_offset)) {
        if (has_offset) rows_u8(1, 1, pair, x, first, n, group, out);
        else rows_u8(0, 1, pair, x, first, n, group, out);
    }
}

static void product_u4(const uint8_t *pair, int is_half, const struct operand *x, int first, int n, float *out) {
    size_t groups = (size_t)x->columns / GROUP;
    _Alignas(64) uint8_t block[WIDE_BLOCK];
    memset(out, 0, (size_t)(n * PAIR) * sizeof(float));
    for (size_t group = 0; group < groups; group++, pair += FOUR_BIT_BLOCK) {
        widen(pair, is_half, block);
        rows_u8(1, 0, block, x, first, n, group, out);
    }
}

#endif
