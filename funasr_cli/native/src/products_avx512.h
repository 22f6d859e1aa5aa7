/* Products with weights of 8 and 4 bits with AVX-512 VNNI: a part of kernels_avx512.c. */
#ifndef FUNASR_PRODUCTS_AVX512_H
#define FUNASR_PRODUCTS_AVX512_H

#include "internal.h"

/* Weights of 4 inputs: those of a pair's first tile, and of its second. */
struct weights {
    __m512i left, right;
};

INLINE struct weights read_weights(const int kind, const uint8_t *block, int four) {
    if (!has_4_bits(kind)) {
        block += four * 4 * PAIR;
        prefetch(block);
        prefetch(block + 64);
        return (struct weights){_mm512_loadu_si512(block), _mm512_loadu_si512(block + 64)};
    }
    block += four * 4 * TILE;
    prefetch(block);
    __m512i both = _mm512_loadu_si512(block), low = _mm512_set1_epi8(15);
    return (struct weights){_mm512_and_si512(both, low), _mm512_and_si512(_mm512_srli_epi16(both, 4), low)};
}

/* Scales (i = 0 and 1) or offsets (2 and 3) of a tile's outputs. */
INLINE __m512 read_scales(const int kind, const uint8_t *block, int i) {
    if (!has_4_bits(kind)) return load((const float *)(block + BLOCK_VALUES) + i * TILE);
    const uint16_t *halves = (const uint16_t *)(const void *)(block + BLOCK_VALUES / 2) + i * TILE;
    if (kind == FN_U4_HALF) return load_half(halves);
    __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)halves));
    return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
}

/* Add the products of one group with n rows to totals (n, PAIR). */
INLINE void multiply_group(const int n, const int kind, const int has_offset, const uint8_t *block,
                           const struct operand *x, size_t row, size_t group, float *totals) {
    size_t columns = (size_t)x->columns, groups = columns / GROUP, at = row * groups + group;
    const int8_t *rounded = x->rounded + at * GROUP;
    __m512i dots[ROWS][2];
    int excess = has_4_bits(kind) ? 0 : 128; /* 8 bits are stored 128 too large */
    for (int i = 0; i < n; i++)
        dots[i][0] = dots[i][1] = _mm512_set1_epi32(-excess * x->sums[at + (size_t)i * groups]);
#pragma GCC unroll 4
    for (int four = 0; four < GROUP / 4; four++) {
        struct weights w = read_weights(kind, block, four);
        for (int i = 0; i < n; i++) {
            __m512i inputs = broadcast(rounded + (size_t)i * columns + 4 * four);
            dots[i][0] = _mm512_dpbusd_epi32(dots[i][0], w.left, inputs);
            dots[i][1] = _mm512_dpbusd_epi32(dots[i][1], w.right, inputs);
        }
    }
    __m512 scales[2], offsets[2];
    for (int half = 0; half < 2; half++) {
        scales[half] = read_scales(kind, block, half);
        if (has_offset) offsets[half] = read_scales(kind, block, 2 + half);
    }
    for (int i = 0; i < n; i++, totals += PAIR) {
        size_t here = at + (size_t)i * groups;
        __m512 scale = _mm512_set1_ps(x->scales[here]),
               sum = _mm512_set1_ps((float)x->sums[here] * x->scales[here]);
        for (int half = 0; half < 2; half++) {
            __m512 dot = _mm512_mul_ps(_mm512_cvtepi32_ps(dots[i][half]), scale);
            __m512 total = _mm512_fmadd_ps(dot, scales[half], load(totals + half * TILE));
            if (has_offset) total = _mm512_fmadd_ps(sum, offsets[half], total);
            _mm512_storeu_ps(totals + half * TILE, total);
        }
    }
}

/* One pass over the weights, group by group: first half of the rows, then the other half, which finds the group's
 * weights in the first-level cache. */
INLINE void multiply_rows(const int kind, const int has_offset, const uint8_t *pair, const struct operand *x,
                          int first, int n, float *out) {
    size_t groups = (size_t)x->columns / GROUP;
    size_t block_bytes = has_4_bits(kind) ? FOUR_BIT_BLOCK : block_size(has_offset);
    int half = n > ROWS ? (n + 1) / 2 : n;
    memset(out, 0, (size_t)(n * PAIR) * sizeof(float));
    for (size_t group = 0; group < groups; group++, pair += block_bytes)
        for (int start = 0; start < n; start += half) {
            size_t row = (size_t)(first + start);
#define GROUP_OF(count) multiply_group(count, kind, has_offset, pair, x, row, group, out + start * PAIR)
            FOR_ROWS(n - start < half ? n - start : half, GROUP_OF)
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
