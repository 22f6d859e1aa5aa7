/* The inner loops with AVX-512 and VNNI; see kernels_scalar.c for what each computes. */

#include "internal.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define ROWS 8       /* that share the loads of a tile: 16 accumulators */
#define ROWS_F32 16  /* with one accumulator each: 17 loads for 16 products, at 2 of each a cycle */
#define INLINE static inline __attribute__((always_inline))

/* --- names for what the loops do --- */

INLINE __m512 load(const float *x) { return _mm512_loadu_ps(x); }
INLINE __m512 load_half(const uint16_t *x) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)x)); }
INLINE __mmask16 first_lanes(int n) { return n >= 16 ? 0xFFFF : (__mmask16)((1u << n) - 1); }

/* Add the products of 4 weights and 4 inputs to each of 16 sums. */
INLINE __m512i add_bytes(__m512i sums, __m512i weights, const int8_t *inputs) {
    int32_t four;
    memcpy(&four, inputs, sizeof four);
    return _mm512_dpbusd_epi32(sums, weights, _mm512_set1_epi32(four));
}

/* e^x to 2 units in the last place: 2^n * e^r with |r| <= ln(2) / 2 and a polynomial of degree 5 in r. */
INLINE __m512 exponential(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-87.3f), x); /* in this order, NaN stays NaN */
    x = _mm512_min_ps(_mm512_set1_ps(88.3f), x);
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_fmadd_ps(_mm512_mul_ps(p, r), r, _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    return _mm512_scalef_ps(p, n);
}

/* --- products --- */

static void round_group(const float *x, int8_t *rounded, float *scale, int32_t *sum) {
    __m512 v[4], peaks = _mm512_setzero_ps();
    __mmask16 bad = 0;
    for (int i = 0; i < 4; i++) {
        v[i] = load(x + 16 * i);
        bad |= _mm512_fpclass_ps_mask(v[i], 0x99); /* NaN or infinite */
        peaks = _mm512_max_ps(peaks, _mm512_abs_ps(v[i]));
    }
    float peak = _mm512_reduce_max_ps(peaks);
    __m512 inverse = _mm512_set1_ps(peak >= TINY ? 127.0f / peak : 0.0f);
    __m512i sums = _mm512_setzero_si512();
    for (int i = 0; i < 4; i++) {
        __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(v[i], inverse));
        sums = _mm512_add_epi32(sums, whole);
        _mm_storeu_si128((__m128i *)(rounded + 16 * i), _mm512_cvtepi32_epi8(whole));
    }
    *scale = bad ? NAN : peak >= TINY ? peak / 127.0f : 0.0f;
    *sum = bad ? 0 : _mm512_reduce_add_epi32(sums);
}

INLINE void rows_u8(const int n, const uint8_t *block, const int has_offset, const struct operand *x, int first,
                    float *out, size_t stride) {
    size_t columns = (size_t)x->columns, groups = columns / GROUP, start = (size_t)first * groups;
    const int8_t *rounded = x->rounded + (size_t)first * columns;
    __m512 totals[ROWS];
    for (int row = 0; row < n; row++) totals[row] = _mm512_setzero_ps();
    for (size_t group = 0; group < groups; group++, block += block_size(has_offset), rounded += GROUP) {
        __m512i dots[ROWS];
        for (int row = 0; row < n; row++)
            dots[row] = _mm512_set1_epi32(-128 * x->sums[start + (size_t)row * groups + group]);
#pragma GCC unroll 16
        for (int i = 0; i < GROUP / 4; i++) {
            if (n > 1) prefetch(block + 64 * i); /* one row waits for memory in any case */
            __m512i weights = _mm512_loadu_si512(block + 64 * i);
            for (int row = 0; row < n; row++)
                dots[row] = add_bytes(dots[row], weights, rounded + (size_t)row * columns + 4 * i);
        }
        __m512 scales = load((const float *)(block + BLOCK_VALUES));
        for (int row = 0; row < n; row++) {
            size_t at = start + (size_t)row * groups + group;
            __m512 dot = _mm512_mul_ps(_mm512_cvtepi32_ps(dots[row]), _mm512_set1_ps(x->scales[at]));
            totals[row] = _mm512_fmadd_ps(dot, scales, totals[row]);
            if (has_offset) {
                __m512 sum = _mm512_set1_ps((float)x->sums[at] * x->scales[at]);
                totals[row] = _mm512_fmadd_ps(sum, load((const float *)(block + BLOCK_VALUES + BLOCK_SCALES)), totals[row]);
            }
        }
    }
    for (int row = 0; row < n; row++) _mm512_storeu_ps(out + (size_t)row * stride, totals[row]);
}

INLINE void rows_f32(const int n, const float *tile, const struct operand *x, int first, float *out, size_t stride) {
    const float *values = row_of(x, first);
    __m512 totals[ROWS_F32];
    for (int row = 0; row < n; row++) totals[row] = _mm512_setzero_ps();
    for (int column = 0; column < x->columns; column++) {
        __m512 weights = load(tile + (size_t)column * TILE);
        for (int row = 0; row < n; row++) {
            __m512 input = _mm512_set1_ps(values[(size_t)row * x->stride + (size_t)column]);
            totals[row] = _mm512_fmadd_ps(input, weights, totals[row]);
        }
    }
    for (int row = 0; row < n; row++) _mm512_storeu_ps(out + (size_t)row * stride, totals[row]);
}

/* The number of rows as a constant, so that the accumulators stay in registers. */
#define FOR_ROWS(n, call)                                                                                      \
    switch (n) {                                                                                               \
    case 1: call(1); break;                                                                                    \
    case 2: call(2); break;                                                                                    \
    case 3: call(3); break;                                                                                    \
    case 4: call(4); break;                                                                                    \
    case 5: call(5); break;                                                                                    \
    case 6: call(6); break;                                                                                    \
    case 7: call(7); break;                                                                                    \
    default: call(8); break;                                                                                   \
    }

#define FOR_MORE_ROWS(n, call)                                                                                 \
    switch (n) {                                                                                               \
    case 9: call(9); break;                                                                                    \
    case 10: call(10); break;                                                                                  \
    case 11: call(11); break;                                                                                  \
    case 12: call(12); break;                                                                                  \
    case 13: call(13); break;                                                                                  \
    case 14: call(14); break;                                                                                  \
    case 15: call(15); break;                                                                                  \
    default: call(16); break;                                                                                  \
    }

static void product_u8(const uint8_t *tile, int has_offset, const struct operand *x, int first, int n, float *out,
                       size_t stride) {
    for (; n > 0; n -= ROWS, first += ROWS, out += ROWS * stride) {
#define WITH(count) rows_u8(count, tile, 1, x, first, out, stride)
#define WITHOUT(count) rows_u8(count, tile, 0, x, first, out, stride)
        if (has_offset) FOR_ROWS(n, WITH)
        else FOR_ROWS(n, WITHOUT)
    }
}

static void product_f32(const float *tile, const struct operand *x, int first, int n, float *out, size_t stride) {
    for (int count, parts = (n + ROWS_F32 - 1) / ROWS_F32; n > 0; n -= count, first += count, out += (size_t)count * stride, parts--) {
        count = (n + parts - 1) / parts; /* parts of about the same size */
#define DENSE(rows) rows_f32(rows, tile, x, first, out, stride)
        if (count <= ROWS) FOR_ROWS(count, DENSE)
        else FOR_MORE_ROWS(count, DENSE)
    }
}

/* --- attention; d is a multiple of 16 --- */

static void scores(const float *query, const uint16_t *keys, int n, int d, float *out) {
    for (int position = 0; position < n; position++, keys += d) {
        __m512 total = _mm512_setzero_ps();
        for (int i = 0; i < d; i += 16) total = _mm512_fmadd_ps(load(query + i), load_half(keys + i), total);
        out[position] = _mm512_reduce_add_ps(total);
    }
}

static void add_weighted(const float *weights, const uint16_t *values, int n, int d, float *out) {
    for (int i = 0; i < d; i += 64) {
        int lanes = d - i < 64 ? (d - i) / 16 : 4;
        __m512 totals[4];
        for (int j = 0; j < lanes; j++) totals[j] = load(out + i + 16 * j);
        for (int position = 0; position < n; position++) {
            __m512 weight = _mm512_set1_ps(weights[position]);
            for (int j = 0; j < lanes; j++)
                totals[j] = _mm512_fmadd_ps(weight, load_half(values + (size_t)position * (size_t)d + i + 16 * j), totals[j]);
        }
        for (int j = 0; j < lanes; j++) _mm512_storeu_ps(out + i + 16 * j, totals[j]);
    }
}

static void to_half(const float *x, int n, uint16_t *out) {
    for (int i = 0; i < n; i += 16) {
        __m256i halves = _mm512_cvtps_ph(load(x + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        _mm256_storeu_si256((__m256i *)(out + i), halves);
    }
}

/* --- whole rows, of any length --- */

static float maximum(const float *x, int n) {
    __m512 peaks = _mm512_set1_ps(x[0]);
    for (int i = 0; i < n; i += 16) peaks = _mm512_mask_max_ps(peaks, first_lanes(n - i), peaks, _mm512_maskz_loadu_ps(first_lanes(n - i), x + i));
    return _mm512_reduce_max_ps(peaks);
}

static float exponentials(const float *x, int n, float peak, float *out) {
    __m512 sum = _mm512_setzero_ps();
    for (int i = 0; i < n; i += 16) {
        __mmask16 lanes = first_lanes(n - i);
        __m512 values = exponential(_mm512_sub_ps(_mm512_maskz_loadu_ps(lanes, x + i), _mm512_set1_ps(peak)));
        if (out) _mm512_mask_storeu_ps(out + i, lanes, values);
        sum = _mm512_mask_add_ps(sum, lanes, sum, values);
    }
    return _mm512_reduce_add_ps(sum);
}

static float sum_of_squares(const float *x, int n) {
    __m512 sum = _mm512_setzero_ps();
    for (int i = 0; i < n; i += 16) {
        __m512 values = _mm512_maskz_loadu_ps(first_lanes(n - i), x + i);
        sum = _mm512_fmadd_ps(values, values, sum);
    }
    return _mm512_reduce_add_ps(sum);
}

static void scale_by(const float *x, const float *weights, float factor, int n, float *out) {
    for (int i = 0; i < n; i += 16) {
        __mmask16 lanes = first_lanes(n - i);
        __m512 values = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes, x + i), _mm512_set1_ps(factor));
        _mm512_mask_storeu_ps(out + i, lanes, _mm512_mul_ps(values, _mm512_maskz_loadu_ps(lanes, weights + i)));
    }
}

static void swiglu(const float *gate, const float *up, int n, float *out) {
    for (int i = 0; i < n; i += 16) {
        __mmask16 lanes = first_lanes(n - i);
        __m512 g = _mm512_maskz_loadu_ps(lanes, gate + i), u = _mm512_maskz_loadu_ps(lanes, up + i);
        __m512 below = _mm512_add_ps(_mm512_set1_ps(1.0f), exponential(_mm512_sub_ps(_mm512_setzero_ps(), g)));
        _mm512_mask_storeu_ps(out + i, lanes, _mm512_mul_ps(_mm512_div_ps(g, below), u));
    }
}

/* --- whole rows of networks with layer norms --- */

static void layer_norm(const float *x, const float *weights, const float *bias, float eps, int n, float *out) {
    __m512 sums = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
    for (int i = 0; i < n; i += 16) sums = _mm512_add_ps(sums, _mm512_maskz_loadu_ps(first_lanes(n - i), x + i));
    __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sums) / (float)n);
    for (int i = 0; i < n; i += 16) {
        __mmask16 lanes = first_lanes(n - i);
        __m512 from_mean = _mm512_maskz_sub_ps(lanes, _mm512_maskz_loadu_ps(lanes, x + i), mean);
        squares = _mm512_fmadd_ps(from_mean, from_mean, squares);
    }
    __m512 factor = _mm512_set1_ps(1.0f / sqrtf(_mm512_reduce_add_ps(squares) / (float)n + eps));
    for (int i = 0; i < n; i += 16) {
        __mmask16 lanes = first_lanes(n - i);
        __m512 normed = _mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(lanes, x + i), mean), factor);
        normed = _mm512_fmadd_ps(normed, _mm512_maskz_loadu_ps(lanes, weights + i), _mm512_maskz_loadu_ps(lanes, bias + i));
        _mm512_mask_storeu_ps(out + i, lanes, normed);
    }
}

static void add(const float *x, const float *y, int n, float *out) {
    for (int i = 0; i < n; i += 16) {
        __mmask16 lanes = first_lanes(n - i);
        __m512 sum = _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, x + i), _mm512_maskz_loadu_ps(lanes, y + i));
        _mm512_mask_storeu_ps(out + i, lanes, sum);
    }
}

static void add_products(const float *x, const float *weights, int n, float *out) {
    for (int i = 0; i < n; i += 16) {
        __mmask16 lanes = first_lanes(n - i);
        __m512 before = _mm512_maskz_loadu_ps(lanes, out + i), w = _mm512_maskz_loadu_ps(lanes, weights + i);
        _mm512_mask_storeu_ps(out + i, lanes, _mm512_fmadd_ps(_mm512_maskz_loadu_ps(lanes, x + i), w, before));
    }
}

static void relu(const float *x, int n, float *out) {
    for (int i = 0; i < n; i += 16) {
        __mmask16 lanes = first_lanes(n - i); /* in this order, NaN stays NaN */
        _mm512_mask_storeu_ps(out + i, lanes, _mm512_max_ps(_mm512_setzero_ps(), _mm512_maskz_loadu_ps(lanes, x + i)));
    }
}

/* gelu(x) = relu(x) - |x| / 2 * erfc(|x| / sqrt(2)), with erfc(z) = p(t) * e^(-z^2), t = 1 / (1 + 0.3275911 z), to
 * 1.5e-7: Abramowitz and Stegun, 7.1.26. */
static void gelu(const float *x, int n, float *out) {
    for (int i = 0; i < n; i += 16) {
        __mmask16 lanes = first_lanes(n - i);
        __m512 v = _mm512_maskz_loadu_ps(lanes, x + i), size = _mm512_abs_ps(v), one = _mm512_set1_ps(1.0f);
        __m512 z = _mm512_mul_ps(size, _mm512_set1_ps(0.70710678f));
        __m512 t = _mm512_div_ps(one, _mm512_fmadd_ps(z, _mm512_set1_ps(0.3275911f), one));
        __m512 p = _mm512_set1_ps(1.061405429f);
        p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-1.453152027f));
        p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(1.421413741f));
        p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-0.284496736f));
        p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0.254829592f));
        __m512 below = _mm512_mul_ps(_mm512_mul_ps(p, t), exponential(_mm512_fnmadd_ps(z, z, _mm512_setzero_ps())));
        __m512 half = _mm512_mul_ps(size, _mm512_set1_ps(0.5f));
        _mm512_mask_storeu_ps(out + i, lanes, _mm512_fnmadd_ps(half, below, _mm512_max_ps(_mm512_setzero_ps(), v)));
    }
}

#define SHARED                                                                                                 \
    round_group, product_u8, product_f32, scores, add_weighted, to_half, maximum, exponentials,                \
        sum_of_squares, scale_by, swiglu
const struct kernels kernels_avx512 = {
    "avx512", SHARED, product_bf16_plain, to_bfloat_plain, layer_norm, add, add_products, relu, gelu,
};
const struct kernels kernels_avx512bf16 = {
    "avx512bf16", SHARED, product_bf16_avx512, to_bfloat_avx512, layer_norm, add, add_products, relu, gelu,
};

#endif
