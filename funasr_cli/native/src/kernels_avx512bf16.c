/* Products of bfloat16 with AVX-512 BF16; everything else as in kernels_avx512.c. See kernels_scalar.c for what
 * each computes. A compiler that does not know these instructions leaves them out. */

#include "internal.h"

#if defined(__AVX512BF16__)

#include <immintrin.h>

#define ROWS 8 /* that share the loads of a pair of tiles: 16 accumulators */
#define INLINE static inline __attribute__((always_inline))

INLINE void rows_bf16(const int n, const uint16_t *pair, const struct operand *x, int first, float *out) {
    const uint16_t *values = x->bfloats + (size_t)first * x->stride;
    __m512 totals[ROWS][2];
    for (int row = 0; row < n; row++) totals[row][0] = totals[row][1] = _mm512_setzero_ps();
    for (int column = 0; column < whole_depth(x->columns); column += 2, pair += 2 * PAIR) {
        __m512bh left = (__m512bh)_mm512_loadu_si512(pair), right = (__m512bh)_mm512_loadu_si512(pair + PAIR);
        for (int row = 0; row < n; row++) {
            int32_t two;
            memcpy(&two, values + (size_t)row * x->stride + column, sizeof two);
            __m512bh inputs = (__m512bh)_mm512_set1_epi32(two);
            totals[row][0] = _mm512_dpbf16_ps(totals[row][0], inputs, left);
            totals[row][1] = _mm512_dpbf16_ps(totals[row][1], inputs, right);
        }
    }
    for (int row = 0; row < n; row++, out += PAIR) {
        _mm512_storeu_ps(out, totals[row][0]);
        _mm512_storeu_ps(out + TILE, totals[row][1]);
    }
}

/* The number of rows as a constant, so that the accumulators stay in registers. */
#define CASE(n) case n: rows_bf16(n, pair, x, first + row, out + row * PAIR); break;

static void product_bf16(const uint16_t *pair, const struct operand *x, int first, int n, float *out) {
    for (int row = 0; row < n; row += ROWS)
        switch (n - row) {
            CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7)
            default: rows_bf16(ROWS, pair, x, first + row, out + row * PAIR);
        }
}

static void to_bfloat(const float *x, int n, uint16_t *out) {
    for (int i = 0; i < n; i += 16) {
        __mmask16 lanes = n - i >= 16 ? 0xFFFF : (__mmask16)((1u << (n - i)) - 1);
        __m256i rounded = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(lanes, x + i));
        _mm256_mask_storeu_epi16(out + i, lanes, rounded);
    }
}

const struct kernels *kernels_avx512bf16(void) {
    static struct kernels made;
    made = kernels_avx512;
    made.name = "avx512bf16";
    made.product_bf16 = product_bf16;
    made.to_bfloat = to_bfloat;
    return &made;
}

#elif defined(__x86_64__)
const struct kernels *kernels_avx512bf16(void) { return NULL; }
#endif
