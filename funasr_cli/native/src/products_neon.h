/* Products with weights of 8 and 4 bits with NEON's dot product: a part of kernels_neon.c.
 *
 * The dot product takes signed bytes, so the weights are taken as value - 128, which is the value with its highest
 * bit flipped, and nothing has to be subtracted afterwards.
 */
#ifndef FUNASR_PRODUCTS_NEON_H
#define FUNASR_PRODUCTS_NEON_H

#include "internal.h"

/* Add the products of 4 weights and 4 inputs to each of 4 sums. */
INLINE int32x4_t add_bytes(int32x4_t sums, int8x16_t weights, const int8_t *inputs) {
    int32_t four;
    memcpy(&four, inputs, sizeof four);
    return vdotq_s32(sums, weights, vreinterpretq_s8_s32(vdupq_n_s32(four)));
}

/* Weights of 4 inputs and 4 outputs of a tile, the q-th quarter of its outputs. */
INLINE int8x16_t read_weights(const int kind, const uint8_t *block, int tile, int four, int q) {
    if (!has_4_bits(kind)) {
        uint8x16_t stored = vld1q_u8(block + (four * PAIR + tile + 4 * q) * 4);
        return vreinterpretq_s8_u8(veorq_u8(stored, vdupq_n_u8(0x80))); /* value - 128 */
    }
    uint8x16_t both = vld1q_u8(block + (four * TILE + 4 * q) * 4);
    return vreinterpretq_s8_u8(tile ? vshrq_n_u8(both, 4) : vandq_u8(both, vdupq_n_u8(15)));
}

/* Scales of 4 outputs from the i-th on, or offsets, from PAIR on. */
INLINE float32x4_t read_scales(const int kind, const uint8_t *block, int i) {
    if (!has_4_bits(kind)) return vld1q_f32((const float *)(block + BLOCK_VALUES) + i);
    const uint16_t *halves = (const uint16_t *)(const void *)(block + BLOCK_VALUES / 2) + i;
    return kind == FN_U4_HALF ? load_half(halves) : vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(halves), 16));
}

/* Add the products of one group with n rows to totals (n, PAIR): one tile of the pair, from output `tile` on. */
INLINE void multiply_group(const int n, const int kind, const int has_offset, const uint8_t *block, const int tile,
                           const struct operand *x, size_t row, size_t group, float *totals) {
    size_t columns = (size_t)x->columns, groups = columns / GROUP, at = row * groups + group;
    const int8_t *rounded = x->rounded + at * GROUP;
    int32x4_t dots[ROWS][QUARTERS];
    for (int i = 0; i < n; i++)
        for (int q = 0; q < QUARTERS; q++) dots[i][q] = vdupq_n_s32(0);
    for (int four = 0; four < GROUP / 4; four++) {
        prefetch(block + four * 4 * (has_4_bits(kind) ? TILE : PAIR) + 4 * tile);
        for (int q = 0; q < QUARTERS; q++) {
            int8x16_t weights = read_weights(kind, block, tile, four, q);
            for (int i = 0; i < n; i++)
                dots[i][q] = add_bytes(dots[i][q], weights, rounded + (size_t)i * columns + 4 * four);
        }
    }
    for (int q = 0; q < QUARTERS; q++) {
        int output = tile + 4 * q;
        float32x4_t scales = read_scales(kind, block, output), offsets = scales;
        if (has_offset) offsets = read_scales(kind, block, PAIR + output);
        for (int i = 0; i < n; i++) {
            size_t here = at + (size_t)i * groups;
            float *to = totals + i * PAIR + output, sum = (float)x->sums[here] * x->scales[here];
            float32x4_t dot = vmulq_n_f32(vcvtq_f32_s32(dots[i][q]), x->scales[here]);
            float32x4_t total = vfmaq_f32(vld1q_f32(to), dot, scales);
            if (has_offset) total = vfmaq_n_f32(total, offsets, sum);
            vst1q_f32(to, total);
        }
    }
}

/* One pass over the weights, group by group: a few rows at a time, which find them in the first-level cache. */
INLINE void multiply_rows(const int kind, const int has_offset, const uint8_t *pair, const struct operand *x,
                          int first, int n, float *out) {
    size_t groups = (size_t)x->columns / GROUP;
    size_t block_bytes = has_4_bits(kind) ? FOUR_BIT_BLOCK : block_size(has_offset);
    memset(out, 0, (size_t)(n * PAIR) * sizeof(float));
    for (size_t group = 0; group < groups; group++, pair += block_bytes)
        for (int start = 0; start < n; start += ROWS) {
            size_t row = (size_t)(first + start);
#define FIRST_TILE(count) multiply_group(count, kind, has_offset, pair, 0, x, row, group, out + start * PAIR)
#define SECOND_TILE(count) multiply_group(count, kind, has_offset, pair, TILE, x, row, group, out + start * PAIR)
            FOR_ROWS(n - start, FIRST_TILE)
            FOR_ROWS(n - start, SECOND_TILE)
        }
}

static void product_u8(const uint8_t *pair, int has_offset, const struct operand *x, int first, int n,
                       float *out) {
    if (has_offset) multiply_rows(FN_U8, 1, pair, x, first, n, out);
    else multiply_rows(FN_U8, 0, pair, x, first, n, out);
}

static void product_u4(const uint8_t *pair, int is_half, const struct operand *x, int first, int n, float *out) {
    if (is_half) multiply_rows(FN_U4_HALF, 1, pair, x, first, n, out);
    else multiply_rows(FN_U4, 1, pair, x, first, n, out);
}

#endif
