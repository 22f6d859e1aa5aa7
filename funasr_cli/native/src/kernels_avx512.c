/* The inner loops with AVX-512 and VNNI; see kernels_scalar.c for what each computes. */

#include "internal.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define ROWS 8       /* that share the loads of a tile: 16 accumulators */
#define INLINE static inline __attribute__((always_inline))

/* --- names for what the loops do --- */

INLINE __m512 load(const float *x) { return _mm512_loadu_ps(x); }
INLINE __m512 load_half(const uint16_t *x) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)x)); }
INLINE __mmask16 first_lanes(int n) { return n >= 16 ? 0xFFFF : (__mmask16)((1u << n) - 1); }

/* 4 inputs, 16 times. */
INLINE __m512i broadcast(const int8_t *inputs) {
    int32_t four;
    memcpy(&four, inputs, sizeof four);
    return _mm512_set1_epi32(four);
}

/* e^x to 2 units in the last place: 2^n * e^r with |r| <= ln(2) / 2 and a polynomial of degree 5 in r. */
INLINE __m512 exponential(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-87.3f), x); /* in this order, NaN stays NaN */
    x = _mm512_min_ps(_mm512_set1_ps(88.3f), x);
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
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

#include "products_avx512.h"

INLINE void rows_f32(const int n, const float *pair, const struct operand *x, int first, float *out) {
    const float *values = row_of(x, first);
    __m512 totals[ROWS][2];
    for (int row = 0; row < n; row++) totals[row][0] = totals[row][1] = _mm512_setzero_ps();
    for (int column = 0; column < x->columns; column++, pair += PAIR) {
        __m512 left = load(pair), right = load(pair + TILE);
        for (int row = 0; row < n; row++) {
            __m512 input = _mm512_set1_ps(values[(size_t)row * x->stride + (size_t)column]);
            totals[row][0] = _mm512_fmadd_ps(input, left, totals[row][0]);
            totals[row][1] = _mm512_fmadd_ps(input, right, totals[row][1]);
        }
    }
    for (int row = 0; row < n; row++, out += PAIR) {
        _mm512_storeu_ps(out, totals[row][0]);
        _mm512_storeu_ps(out + TILE, totals[row][1]);
    }
}

static void product_f32(const float *pair, const struct operand *x, int first, int n, float *out) {
    for (int row = 0; row < n; row += ROWS) {
#define DENSE(count) rows_f32(count, pair, x, first + row, out + row * PAIR)
        FOR_ROWS(n - row, DENSE)
    }
}

/* --- attention; d is a multiple of 16. Queries are taken in twos, which share what is read. --- */

/* Sums of 4 registers. */
INLINE __m128 reduce_4(const __m512 x[4]) {
    __m256 y[4];
    for (int i = 0; i < 4; i++)
        y[i] = _mm256_add_ps(_mm512_castps512_ps256(x[i]), _mm512_extractf32x8_ps(x[i], 1));
    __m256 sums = _mm256_hadd_ps(_mm256_hadd_ps(y[0], y[1]), _mm256_hadd_ps(y[2], y[3]));
    return _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
}

INLINE void scores_of(const int count, const float *queries, const uint16_t *keys, int n, int d, float *out,
                      size_t stride) {
    for (int first = 0; first < n; first += 4) {
        const uint16_t *four[4]; /* keys; the last one again where there are none */
        for (int i = 0; i < 4; i++) four[i] = keys + (first + i < n ? first + i : n - 1) * d;
        __m512 totals[2][4] = {0};
        for (int i = 0; i < d; i += 16)
            for (int key = 0; key < 4; key++) {
                if (i % 32 == 0) __builtin_prefetch(four[key] + i + AHEAD * d);
                __m512 values = load_half(four[key] + i);
                for (int query = 0; query < count; query++)
                    totals[query][key] =
                        _mm512_fmadd_ps(load(queries + query * d + i), values, totals[query][key]);
            }
        for (int query = 0; query < count; query++)
            _mm_mask_storeu_ps(out + (size_t)query * stride + first, (__mmask8)first_lanes(n - first),
                               reduce_4(totals[query]));
    }
}

static void scores(const float *queries, int count, const uint16_t *keys, int n, int d, float *out,
                   size_t stride) {
    for (; count > 1; count -= 2, queries += 2 * d, out += 2 * stride)
        scores_of(2, queries, keys, n, d, out, stride);
    if (count) scores_of(1, queries, keys, n, d, out, stride);
}

/* `lanes` registers of the values, from the first one on. */
INLINE void add_lanes(const int count, const int lanes, const float *weights, size_t stride,
                      const uint16_t *values, int n, int d, float *out) {
    __m512 totals[2][8];
    for (int query = 0; query < count; query++)
        for (int i = 0; i < lanes; i++) totals[query][i] = load(out + query * d + 16 * i);
    for (int value = 0; value < n; value++, values += d)
        for (int i = 0; i < lanes; i++) {
            if (i % 2 == 0) __builtin_prefetch(values + 16 * i + AHEAD * d);
            __m512 part = load_half(values + 16 * i);
            for (int query = 0; query < count; query++)
                totals[query][i] = _mm512_fmadd_ps(_mm512_set1_ps(weights[(size_t)query * stride + (size_t)value]),
                                                   part, totals[query][i]);
        }
    for (int query = 0; query < count; query++)
        for (int i = 0; i < lanes; i++) _mm512_storeu_ps(out + query * d + 16 * i, totals[query][i]);
}

/* All columns: 128 or 64 at a time while there are that many, since one addition waits for the other. */
INLINE void add_columns(const int count, const float *weights, size_t stride, const uint16_t *values, int n, int d,
                        float *out) {
    for (int i = 0, lanes; i < d; i += 16 * lanes) {
        lanes = d - i >= 128 ? 8 : d - i >= 64 ? 4 : 1;
        if (lanes == 8) add_lanes(count, 8, weights, stride, values + i, n, d, out + i);
        else if (lanes == 4) add_lanes(count, 4, weights, stride, values + i, n, d, out + i);
        else add_lanes(count, 1, weights, stride, values + i, n, d, out + i);
    }
}

static void add_weighted(const float *weights, size_t stride, int count, const uint16_t *values, int n, int d,
                         float *out) {
    for (; count > 1; count -= 2, weights += 2 * stride, out += 2 * d)
        add_columns(2, weights, stride, values, n, d, out);
    if (count) add_columns(1, weights, stride, values, n, d, out);
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
    for (int i = 0; i < n; i += 16)
        peaks =
            _mm512_mask_max_ps(peaks, first_lanes(n - i), peaks, _mm512_maskz_loadu_ps(first_lanes(n - i), x + i));
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
        normed = _mm512_fmadd_ps(normed, _mm512_maskz_loadu_ps(lanes, weights + i),
                                 _mm512_maskz_loadu_ps(lanes, bias + i));
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
        _mm512_mask_storeu_ps(out + i, lanes,
                              _mm512_max_ps(_mm512_setzero_ps(), _mm512_maskz_loadu_ps(lanes, x + i)));
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
        __m512 below =
            _mm512_mul_ps(_mm512_mul_ps(p, t), exponential(_mm512_fnmadd_ps(z, z, _mm512_setzero_ps())));
        __m512 half = _mm512_mul_ps(size, _mm512_set1_ps(0.5f));
        _mm512_mask_storeu_ps(out + i, lanes,
                              _mm512_fnmadd_ps(half, below, _mm512_max_ps(_mm512_setzero_ps(), v)));
    }
}

const struct kernels kernels_avx512 = {
    "avx512", round_group, product_u8, product_u4, product_f32, scores, add_weighted, to_half,
    maximum, exponentials, sum_of_squares, scale_by, swiglu,
    product_bf16_plain, to_bfloat_plain, layer_norm, add, add_products, relu, gelu,
};

#endif
