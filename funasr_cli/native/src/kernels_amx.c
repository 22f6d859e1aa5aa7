/* Products with AMX's tiles, which pay from 9 rows on; everything else as in kernels_avx512.c.
 *
 * A tile register sums the products of one group, 64 inputs of up to 16 rows with 16 outputs, in 32 bits: exactly,
 * as every instruction set does. The scales are applied in the same order as in kernels_avx512.c, so that the
 * results are the same bit by bit. A compiler that does not know AMX leaves them out.
 */

#include "internal.h"

#if defined(__x86_64__) && (defined(__AMX_INT8__) || defined(FN_TILES)) /* FN_TILES: a test names an emulation */

#ifndef FN_TILES
#define FN_TILES "amx_tiles.h"
#endif
#include FN_TILES

#include <immintrin.h>
#include <string.h>

#define FEWEST_ROWS 9
#define INLINE static inline __attribute__((always_inline))

/* Add sums (n, PAIR) of one group of 64 inputs, times the scales, to out (n, PAIR). */
INLINE void add_scaled(const int32_t *sums, const int has_offset, const uint8_t *block, const struct operand *x,
                       size_t first, int n, size_t group, float *out) {
    const float *scales = (const float *)(block + BLOCK_VALUES), *offsets = scales + PAIR;
    size_t groups = (size_t)x->columns / GROUP, at = first * groups + group;
    for (int row = 0; row < n; row++, at += groups, sums += PAIR, out += PAIR) {
        __m512 scale = _mm512_set1_ps(x->scales[at]), sum = _mm512_set1_ps((float)x->sums[at] * x->scales[at]);
        __m512i excess = _mm512_set1_epi32(128 * x->sums[at]); /* since weights are stored 128 too large */
        for (int half = 0; half < PAIR; half += TILE) {
            __m512i dot = _mm512_sub_epi32(_mm512_loadu_si512(sums + half), excess);
            __m512 total = _mm512_loadu_ps(out + half);
            total = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(dot), scale), _mm512_loadu_ps(scales + half),
                                    total);
            if (has_offset) total = _mm512_fmadd_ps(sum, _mm512_loadu_ps(offsets + half), total);
            _mm512_storeu_ps(out + half, total);
        }
    }
}

/* One group of up to BLOCK_ROWS rows in 8 bits, with tiles that have begun. */
INLINE void multiply_group(const int has_offset, const uint8_t *block, const struct operand *x, int first, int n,
                           size_t group, float *out) {
    int32_t sums[BLOCK_ROWS * PAIR] __attribute__((aligned(64)));
    size_t columns = (size_t)x->columns, start = (size_t)first;
    tiles_read_inputs(x->rounded + start * columns + group * GROUP, columns);
    tiles_multiply(block, sums);
    add_scaled(sums, has_offset, block, x, start, n, group, out);
}

static void product_u8(const uint8_t *pair, int has_offset, const struct operand *x, int first, int n,
                       float *out) {
    if (n < FEWEST_ROWS) {
        kernels_avx512.product_u8(pair, has_offset, x, first, n, out);
        return;
    }
    memset(out, 0, (size_t)(n * PAIR) * sizeof(float));
    tiles_begin(n);
    for (size_t group = 0; group < (size_t)x->columns / GROUP; group++, pair += block_size(has_offset)) {
        for (int i = 0; i < BLOCK_VALUES; i += 64) prefetch(pair + i);
        if (has_offset) multiply_group(1, pair, x, first, n, group, out);
        else multiply_group(0, pair, x, first, n, group, out);
    }
    tiles_end();
}

/* A block of 4 bits as one of 8: tiles multiply whole bytes. */
INLINE void widen(const uint8_t *block, int is_half, uint8_t *out) {
    const uint16_t *halves = (const uint16_t *)(const void *)(block + BLOCK_VALUES / 2);
    float *scales = (float *)(void *)(out + BLOCK_VALUES); /* and offsets */
    for (int four = 0; four < GROUP / 4; four++, block += 4 * TILE, out += 4 * PAIR) {
        prefetch(block);
        for (int i = 0; i < 4 * TILE; i++) {
            out[i] = (block[i] & 15) | 128; /* 8 bits are stored 128 too large */
            out[4 * TILE + i] = block[i] >> 4 | 128;
        }
    }
    for (int i = 0; i < 2 * PAIR; i++) scales[i] = is_half ? from_half(halves[i]) : from_bfloat(halves[i]);
}

static void product_u4(const uint8_t *pair, int is_half, const struct operand *x, int first, int n, float *out) {
    if (n < FEWEST_ROWS) {
        kernels_avx512.product_u4(pair, is_half, x, first, n, out);
        return;
    }
    _Alignas(64) uint8_t block[WIDE_BLOCK];
    memset(out, 0, (size_t)(n * PAIR) * sizeof(float));
    tiles_begin(n);
    for (size_t group = 0; group < (size_t)x->columns / GROUP; group++, pair += FOUR_BIT_BLOCK) {
        widen(pair, is_half, block);
        multiply_group(1, block, x, first, n, group, out);
    }
    tiles_end();
}

/* Return whether a small product with extreme values equals the scalar one. Nobody would
 * notice a wrong one. */
static int is_right(void) {
    uint8_t pair[BLOCK_VALUES + BLOCK_SCALES];
    int8_t rounded[BLOCK_ROWS * GROUP];
    float scales[BLOCK_ROWS], out[BLOCK_ROWS * PAIR], expected[BLOCK_ROWS * PAIR], *weight_scales;
    int32_t sums[BLOCK_ROWS] = {0};
    struct operand x = {.columns = GROUP, .rounded = rounded, .scales = scales, .sums = sums};
    for (int i = 0; i < BLOCK_VALUES; i++) pair[i] = (uint8_t)(i * i + i / 7);
    weight_scales = (float *)(pair + BLOCK_VALUES);
    for (int i = 0; i < PAIR; i++) weight_scales[i] = 1.0f;
    for (int row = 0; row < BLOCK_ROWS; row++) {
        scales[row] = 1.0f;
        for (int i = 0; i < GROUP; i++) {
            rounded[row * GROUP + i] = (int8_t)((row * 91 + i * i * 37) % 255 - 127);
            sums[row] += rounded[row * GROUP + i];
        }
    }
    product_u8(pair, 0, &x, 0, BLOCK_ROWS, out);
    kernels_scalar.product_u8(pair, 0, &x, 0, BLOCK_ROWS, expected);
    return !memcmp(out, expected, sizeof out);
}

const struct kernels *kernels_amx(const struct kernels *avx512) {
    static struct kernels made;
    if (!tiles_allowed() || !is_right()) return NULL;
    made = *avx512;
    made.name = "amx";
    made.product_u8 = product_u8;
    made.product_u4 = product_u4;
    return &made;
}

#elif defined(__x86_64__)
const struct kernels *kernels_amx(const struct kernels *avx512) {
    (void)avx512;
    return NULL;
}
#endif
