/* Products with weights of 8 and 4 bits with AVX2, or with AVX-VNNI: a part of kernels_avx2.c.
 *
 * AVX2 multiplies unsigned with signed bytes and adds pairs in 16 bits, which saturate at 32,767. So the weights
 * are taken as magnitudes of at most 128 and their signs are moved to the inputs, of at most 127:
 * 2 * 128 * 127 = 32,512.
 * Weights of 4 bits are at most 15: eight such sums fit into 16 bits, 8 * 2 * 15 * 127 = 30,480.
 */
#ifndef FUNASR_PRODUCTS_AVX2_H
#define FUNASR_PRODUCTS_AVX2_H

#include "internal.h"

/* Weights as `add_bytes` takes them: 4 of each of 8 outputs. */
struct weights {
    __m256i values, magnitudes;
};

#if defined(__AVXVNNI__)
#define FIRST_SUM(inputs_sum) (-128 * (inputs_sum)) /* the weights are taken as stored, 128 too large */
INLINE struct weights load_weights(const uint8_t *stored) {
    return (struct weights){.values = _mm256_loadu_si256((const __m256i *)stored)};
}
INLINE __m256i add_bytes(__m256i sums, struct weights w, __m256i inputs) {
    return _mm256_dpbusd_avx_epi32(sums, w.values, inputs);
}
/* The same with weights of 4 bits. */
#define SMALL_SUMS GROUP
INLINE __m256i add_small(__m256i sums, __m256i weights, __m256i inputs) {
    return _mm256_dpbusd_avx_epi32(sums, weights, inputs);
}
INLINE __m256i whole_sums(__m256i sums) { return sums; }
#else
#define FIRST_SUM(inputs_sum) 0
INLINE struct weights load_weights(const uint8_t *stored) {
    __m256i values = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)stored), _mm256_set1_epi8((char)0x80));
    return (struct weights){values, _mm256_abs_epi8(values)}; /* value - 128 */
}
/* Add the products of 4 weights and 4 inputs to each of 8 sums. */
INLINE __m256i add_bytes(__m256i sums, struct weights w, __m256i inputs) {
    __m256i pairs = _mm256_maddubs_epi16(w.magnitudes, _mm256_sign_epi8(inputs, w.values));
    return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
/* The same with weights of 4 bits, to 16 sums of 16 bits, of which two each belong to an output. Products of
 * SMALL_SUMS inputs fit into them. */
#define SMALL_SUMS 32
INLINE __m256i add_small(__m256i sums, __m256i weights, __m256i inputs) {
    return _mm256_add_epi16(sums, _mm256_maddubs_epi16(weights, inputs));
}
INLINE __m256i whole_sums(__m256i sums) { return _mm256_madd_epi16(sums, _mm256_set1_epi16(1)); }
#endif

/* Dot products of one group in 8 bits with n rows, which are `columns` apart, for one tile of the pair, from
 * output `tile` on; 8 bits are stored 128 too large. */
INLINE void dots_u8(const int n, const uint8_t *block, int tile, const int8_t *rounded, size_t columns,
                    const int32_t *sums, size_t groups, __m256i dots[ROWS][2]) {
    for (int i = 0; i < n; i++)
        dots[i][0] = dots[i][1] = _mm256_set1_epi32(FIRST_SUM(sums[(size_t)i * groups]));
    block += 4 * tile;
#pragma GCC unroll 4
    for (int four = 0; four < GROUP / 4; four++, block += 4 * PAIR) {
        prefetch(block);
        struct weights left = load_weights(block), right = load_weights(block + 32);
        for (int i = 0; i < n; i++) {
            __m256i inputs = broadcast(rounded + (size_t)i * columns + 4 * four);
            dots[i][0] = add_bytes(dots[i][0], left, inputs);
            dots[i][1] = add_bytes(dots[i][1], right, inputs);
        }
    }
}

/* The same in 4 bits. */
INLINE void dots_u4(const int n, const uint8_t *block, const int tile, const int8_t *rounded, size_t columns,
                    __m256i dots[ROWS][2]) {
    __m256i low = _mm256_set1_epi8(15);
    for (int i = 0; i < n; i++) dots[i][0] = dots[i][1] = _mm256_setzero_si256();
    for (int first = 0; first < GROUP; first += SMALL_SUMS) {
        __m256i part[ROWS][2];
        for (int i = 0; i < n; i++) part[i][0] = part[i][1] = _mm256_setzero_si256();
#pragma GCC unroll 4
        for (int input = first; input < first + SMALL_SUMS; input += 4, block += 4 * TILE) {
            prefetch(block);
            __m256i left = _mm256_loadu_si256((const __m256i *)block);
            __m256i right = _mm256_loadu_si256((const __m256i *)(block + 32));
            left = _mm256_and_si256(tile ? _mm256_srli_epi16(left, 4) : left, low);
            right = _mm256_and_si256(tile ? _mm256_srli_epi16(right, 4) : right, low);
            for (int i = 0; i < n; i++) {
                __m256i inputs = broadcast(rounded + (size_t)i * columns + input);
                part[i][0] = add_small(part[i][0], left, inputs);
                part[i][1] = add_small(part[i][1], right, inputs);
            }
        }
        for (int i = 0; i < n; i++)
            for (int half = 0; half < 2; half++)
                dots[i][half] = _mm256_add_epi32(dots[i][half], whole_sums(part[i][half]));
    }
}

/* Scales (i = 0 and 1) or offsets (2 and 3) of half of a tile's outputs. */
INLINE __m256 read_scales(const int kind, const uint8_t *block, int tile, int i) {
    int place = i / 2 * PAIR + tile + i % 2 * 8;
    if (!has_4_bits(kind)) return load((const float *)(block + BLOCK_VALUES) + place);
    const uint16_t *halves = (const uint16_t *)(const void *)(block + BLOCK_VALUES / 2) + place;
    if (kind == FN_U4_HALF) return load_half(halves);
    __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)halves));
    return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
}

/* Add the products of one group with n rows to totals (n, PAIR): one tile of the pair, from output `tile` on. */
INLINE void multiply_group(const int n, const int kind, const int has_offset, const uint8_t *block, const int tile,
                           const struct operand *x, size_t row, size_t group, float *totals) {
    size_t columns = (size_t)x->columns, groups = columns / GROUP, at = row * groups + group;
    __m256i dots[ROWS][2];
    if (has_4_bits(kind)) dots_u4(n, block, tile, x->rounded + at * GROUP, columns, dots);
    else dots_u8(n, block, tile, x->rounded + at * GROUP, columns, x->sums + at, groups, dots);
    for (int half = 0; half < 2; half++) {
        __m256 scales = read_scales(kind, block, tile, half), offsets = scales;
        if (has_offset) offsets = read_scales(kind, block, tile, 2 + half);
        for (int i = 0; i < n; i++) {
            size_t here = at + (size_t)i * groups;
            float *to = totals + i * PAIR + tile + 8 * half;
            __m256 dot = _mm256_mul_ps(_mm256_cvtepi32_ps(dots[i][half]), _mm256_set1_ps(x->scales[here]));
            __m256 total = _mm256_fmadd_ps(dot, scales, load(to));
            __m256 sum = _mm256_set1_ps((float)x->sums[here] * x->scales[here]);
            if (has_offset) total = _mm256_fmadd_ps(sum, offsets, total);
            _mm256_storeu_ps(to, total);
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
