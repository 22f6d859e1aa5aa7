/* Products of bfloat16 with AVX-512 BF16; see kernels_scalar.c for what each computes. */

#include "internal.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define ROWS 16 /* with one accumulator each */
#define INLINE static inline __attribute__((always_inline))

INLINE void rows_bf16(const int n, const uint16_t *tile, const struct operand *x, int first, float *out, size_t stride) {
    const uint16_t *values = x->bfloats + (size_t)first * x->stride;
    __m512 totals[ROWS];
    for (int row = 0; row < n; row++) totals[row] = _mm512_setzero_ps();
    for (int column = 0; column < whole_depth(x->columns); column += 2) {
        __m512i weights = _mm512_loadu_si512(tile + (size_t)column * TILE);
        for (int row = 0; row < n; row++) {
            int32_t pair;
            memcpy(&pair, values + (size_t)row * x->stride + column, sizeof pair);
            totals[row] = _mm512_dpbf16_ps(totals[row], (__m512bh)_mm512_set1_epi32(pair), (__m512bh)weights);
        }
    }
    for (int row = 0; row < n; row++) _mm512_storeu_ps(out + (size_t)row * stride, totals[row]);
}

/* The number of rows as a constant, so that the accumulators stay in registers. */
#define CASE(n) case n: rows_bf16(n, tile, x, first, out, stride); break;

void product_bf16_avx512(const uint16_t *tile, const struct operand *x, int first, int n, float *out, size_t stride) {
    for (int count, parts = (n + ROWS - 1) / ROWS; n > 0; n -= count, first += count, out += (size_t)count * stride, parts--) {
        count = (n + parts - 1) / parts; /* parts of about the same size */
        switch (count) {
            CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
            CASE(9) CASE(10) CASE(11) CASE(12) CASE(13) CASE(14) CASE(15) CASE(16)
        }
    }
}

void to_bfloat_avx512(const float *x, int n, uint16_t *out) {
    for (int i = 0; i < n; i += 16) {
        __mmask16 lanes = n - i >= 16 ? 0xFFFF : (__mmask16)((1u << (n - i)) - 1);
        __m256i rounded = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(lanes, x + i));
        _mm256_mask_storeu_epi16(out + i, lanes, rounded);
    }
}

#endif
