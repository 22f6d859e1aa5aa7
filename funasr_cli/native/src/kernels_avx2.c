/* The inner loops with AVX2, FMA and F16C; see kernels_scalar.c for what each computes. kernels_avxvnni.c compiles
 * them again for CPUs that have AVX-VNNI, too.
 */

#include "internal.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define ROWS 4     /* that share the loads of a tile of bytes: 8 accumulators */
#define ROWS_F32 6 /* that share the loads of a tile: 12 accumulators */
#define INLINE static inline __attribute__((always_inline))

/* --- names for what the loops do --- */

INLINE __m256 load(const float *x) { return _mm256_loadu_ps(x); }
INLINE __m256 load_half(const uint16_t *x) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)x)); }

INLINE float reduce_add(__m256 x) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

INLINE float reduce_max(__m256 x) {
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

/* 4 inputs, 8 times. */
INLINE __m256i broadcast(const int8_t *inputs) {
    int32_t four;
    memcpy(&four, inputs, sizeof four);
    return _mm256_set1_epi32(four);
}

/* e^x as in kernels_avx512.c */
INLINE __m256 exponential(__m256 x) {
    x = _mm256_max_ps(_mm256_set1_ps(-87.3f), x);
    x = _mm256_min_ps(_mm256_set1_ps(88.3f), x);
    __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 p = _mm256_set1_ps(1.9875691500e-4f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.3981999507e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.3334519073e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1665795894e-2f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.6666665459e-1f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.0000001201e-1f));
    p = _mm256_fmadd_ps(_mm256_mul_ps(p, r), r, _mm256_add_ps(r, _mm256_set1_ps(1.0f)));
    __m256i bits = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(p, _mm256_castsi256_ps(bits));
}

/* --- products --- */

static void round_group(const float *x, int8_t *rounded, float *scale, int32_t *sum) {
    __m256 peaks = _mm256_setzero_ps(), sign = _mm256_set1_ps(-0.0f), bad = _mm256_setzero_ps();
    for (int i = 0; i < GROUP; i += 8) {
        __m256 v = load(x + i), nothing = _mm256_sub_ps(v, v); /* NaN, if v is not finite */
        bad = _mm256_or_ps(bad, _mm256_cmp_ps(nothing, nothing, _CMP_UNORD_Q));
        peaks = _mm256_max_ps(peaks, _mm256_andnot_ps(sign, v));
    }
    float peak = reduce_max(peaks);
    __m256 inverse = _mm256_set1_ps(peak >= TINY ? 127.0f / peak : 0.0f);
    __m256i sums = _mm256_setzero_si256(), order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    for (int i = 0; i < GROUP; i += 32) {
        __m256i whole[4];
        for (int j = 0; j < 4; j++) {
            whole[j] = _mm256_cvtps_epi32(_mm256_mul_ps(load(x + i + 8 * j), inverse));
            sums = _mm256_add_epi32(sums, whole[j]);
        }
        __m256i low = _mm256_packs_epi32(whole[0], whole[1]), high = _mm256_packs_epi32(whole[2], whole[3]);
        __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order);
        _mm256_storeu_si256((__m256i *)(rounded + i), bytes);
    }
    *scale = _mm256_movemask_ps(bad) ? NAN : peak >= TINY ? peak / 127.0f : 0.0f;
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4E));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0xB1));
    *sum = _mm256_movemask_ps(bad) ? 0 : _mm_cvtsi128_si32(four);
}

/* The number of rows as a constant, so that the accumulators stay in registers. */
#define FOR_ROWS(n, call)                                                                                      \
    switch (n) {                                                                                               \
    case 1: call(1); break;                                                                                    \
    case 2: call(2); break;                                                                                    \
    case 3: call(3); break;                                                                                    \
    default: call(4); break;                                                                                   \
    }

#include "products_avx2.h"

/* One tile of a pair. */
INLINE void rows_f32(const int n, const float *tile, const struct operand *x, int first, float *out) {
    const float *values = row_of(x, first);
    __m256 totals[ROWS_F32][2];
    for (int row = 0; row < n; row++) totals[row][0] = totals[row][1] = _mm256_setzero_ps();
    for (int column = 0; column < x->columns; column++, tile += PAIR) {
        __m256 left = load(tile), right = load(tile + 8);
        for (int row = 0; row < n; row++) {
            __m256 input = _mm256_set1_ps(values[(size_t)row * x->stride + (size_t)column]);
            totals[row][0] = _mm256_fmadd_ps(input, left, totals[row][0]);
            totals[row][1] = _mm256_fmadd_ps(input, right, totals[row][1]);
        }
    }
    for (int row = 0; row < n; row++, out += PAIR) {
        _mm256_storeu_ps(out, totals[row][0]);
        _mm256_storeu_ps(out + 8, totals[row][1]);
    }
}

static void product_f32(const float *pair, const struct operand *x, int first, int n, float *out) {
    for (int tile = 0; tile < PAIR; tile += TILE)
        for (int row = 0; row < n; row += ROWS_F32) {
#define DENSE(count) rows_f32(count, pair + tile, x, first + row, out + row * PAIR + tile)
            if (n - row > 5) DENSE(6);
            else if (n - row == 5) DENSE(5);
            else FOR_ROWS(n - row, DENSE)
        }
}

/* --- attention; d is a multiple of 16. Queries are taken in twos, which share what is read. --- */

INLINE void scores_of(const int count, const float *queries, const uint16_t *keys, int n, int d, float *out,
                      size_t stride) {
    for (int first = 0; first < n; first += 2) {
        const uint16_t *two[2] = {keys + first * d, keys + (first + 1 < n ? first + 1 : first) * d};
        __m256 totals[2][2] = {0};
        for (int i = 0; i < d; i += 8)
            for (int key = 0; key < 2; key++) {
                if (i % 32 == 0) __builtin_prefetch(two[key] + i + AHEAD * d);
                __m256 values = load_half(two[key] + i);
                for (int query = 0; query < count; query++)
                    totals[query][key] =
                        _mm256_fmadd_ps(load(queries + query * d + i), values, totals[query][key]);
            }
        for (int query = 0; query < count; query++)
            for (int key = 0; key < 2 && first + key < n; key++)
                out[(size_t)query * stride + (size_t)(first + key)] = reduce_add(totals[query][key]);
    }
}

static void scores(const float *queries, int count, const uint16_t *keys, int n, int d, float *out,
                   size_t stride) {
    for (; count > 1; count -= 2, queries += 2 * d, out += 2 * stride)
        scores_of(2, queries, keys, n, d, out, stride);
    if (count) scores_of(1, queries, keys, n, d, out, stride);
}

/* `lanes` registers of each value, from the first one on. */
INLINE void add_lanes(const int count, const int lanes, const float *weights, size_t stride,
                      const uint16_t *values, int n, int d, float *out) {
    __m256 totals[2][4];
    for (int query = 0; query < count; query++)
        for (int i = 0; i < lanes; i++) totals[query][i] = load(out + query * d + 8 * i);
    for (int value = 0; value < n; value++, values += d)
        for (int i = 0; i < lanes; i++) {
            if (!i) __builtin_prefetch(values + AHEAD * d);
            __m256 part = load_half(values + 8 * i);
            for (int query = 0; query < count; query++)
                totals[query][i] = _mm256_fmadd_ps(_mm256_set1_ps(weights[(size_t)query * stride + (size_t)value]),
                                                   part, totals[query][i]);
        }
    for (int query = 0; query < count; query++)
        for (int i = 0; i < lanes; i++) _mm256_storeu_ps(out + query * d + 8 * i, totals[query][i]);
}

static void add_weighted(const float *weights, size_t stride, int count, const uint16_t *values, int n, int d,
                         float *out) {
    for (; count > 0; count -= 2, weights += 2 * stride, out += 2 * d)
        for (int i = 0, lanes; i < d; i += 8 * lanes) {
            lanes = d - i < 32 ? 2 : 4;
            if (count > 1 && lanes == 4) add_lanes(2, 4, weights, stride, values + i, n, d, out + i);
            else if (count > 1) add_lanes(2, 2, weights, stride, values + i, n, d, out + i);
            else if (lanes == 4) add_lanes(1, 4, weights, stride, values + i, n, d, out + i);
            else add_lanes(1, 2, weights, stride, values + i, n, d, out + i);
        }
}

static void to_half(const float *x, int n, uint16_t *out) {
    for (int i = 0; i < n; i += 8)
        _mm_storeu_si128((__m128i *)(out + i),
                         _mm256_cvtps_ph(load(x + i), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

/* --- whole rows, of any length: 8 values at a time, then the rest one by one --- */

static float maximum(const float *x, int n) {
    __m256 peaks = _mm256_set1_ps(x[0]);
    int i = 0;
    for (; i + 8 <= n; i += 8) peaks = _mm256_max_ps(peaks, load(x + i));
    float peak = reduce_max(peaks);
    for (; i < n; i++) peak = x[i] > peak ? x[i] : peak;
    return peak;
}

static float exponentials(const float *x, int n, float peak, float *out) {
    __m256 sums = _mm256_setzero_ps();
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 values = exponential(_mm256_sub_ps(load(x + i), _mm256_set1_ps(peak)));
        if (out) _mm256_storeu_ps(out + i, values);
        sums = _mm256_add_ps(sums, values);
    }
    float sum = reduce_add(sums);
    for (; i < n; i++) {
        float value = expf(x[i] - peak);
        if (out) out[i] = value;
        sum += value;
    }
    return sum;
}

static float sum_of_squares(const float *x, int n) {
    __m256 sums = _mm256_setzero_ps();
    int i = 0;
    for (; i + 8 <= n; i += 8) sums = _mm256_fmadd_ps(load(x + i), load(x + i), sums);
    float sum = reduce_add(sums);
    for (; i < n; i++) sum += x[i] * x[i];
    return sum;
}

static void scale_by(const float *x, const float *weights, float factor, int n, float *out) {
    int i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i,
                         _mm256_mul_ps(_mm256_mul_ps(load(x + i), _mm256_set1_ps(factor)), load(weights + i)));
    for (; i < n; i++) out[i] = x[i] * factor * weights[i];
}

static void swiglu(const float *gate, const float *up, int n, float *out) {
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 g = load(gate + i);
        __m256 below = _mm256_add_ps(_mm256_set1_ps(1.0f), exponential(_mm256_sub_ps(_mm256_setzero_ps(), g)));
        _mm256_storeu_ps(out + i, _mm256_mul_ps(_mm256_div_ps(g, below), load(up + i)));
    }
    for (; i < n; i++) out[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

/* --- whole rows of networks with layer norms --- */

static void layer_norm(const float *x, const float *weights, const float *bias, float eps, int n, float *out) {
    __m256 sums = _mm256_setzero_ps(), squares = _mm256_setzero_ps();
    int i = 0;
    for (; i + 8 <= n; i += 8) sums = _mm256_add_ps(sums, load(x + i));
    float sum = reduce_add(sums);
    for (; i < n; i++) sum += x[i];
    float mean = sum / (float)n;
    for (i = 0; i + 8 <= n; i += 8) {
        __m256 from_mean = _mm256_sub_ps(load(x + i), _mm256_set1_ps(mean));
        squares = _mm256_fmadd_ps(from_mean, from_mean, squares);
    }
    float variance = reduce_add(squares);
    for (; i < n; i++) variance += (x[i] - mean) * (x[i] - mean);
    float factor = 1.0f / sqrtf(variance / (float)n + eps);
    for (i = 0; i + 8 <= n; i += 8) {
        __m256 normed = _mm256_mul_ps(_mm256_sub_ps(load(x + i), _mm256_set1_ps(mean)), _mm256_set1_ps(factor));
        _mm256_storeu_ps(out + i, _mm256_fmadd_ps(normed, load(weights + i), load(bias + i)));
    }
    for (; i < n; i++) out[i] = (x[i] - mean) * factor * weights[i] + bias[i];
}

static void add(const float *x, const float *y, int n, float *out) {
    int i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(out + i, _mm256_add_ps(load(x + i), load(y + i)));
    for (; i < n; i++) out[i] = x[i] + y[i];
}

static void add_products(const float *x, const float *weights, int n, float *out) {
    int i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i, _mm256_fmadd_ps(load(x + i), load(weights + i), load(out + i)));
    for (; i < n; i++) out[i] += x[i] * weights[i];
}

static void relu(const float *x, int n, float *out) {
    int i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(out + i, _mm256_max_ps(_mm256_setzero_ps(), load(x + i)));
    for (; i < n; i++) out[i] = x[i] < 0.0f ? 0.0f : x[i];
}

/* As in kernels_avx512.c */
static void gelu(const float *x, int n, float *out) {
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 v = load(x + i), size = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v), one = _mm256_set1_ps(1.0f);
        __m256 z = _mm256_mul_ps(size, _mm256_set1_ps(0.70710678f));
        __m256 t = _mm256_div_ps(one, _mm256_fmadd_ps(z, _mm256_set1_ps(0.3275911f), one));
        __m256 p = _mm256_set1_ps(1.061405429f);
        p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(-1.453152027f));
        p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(1.421413741f));
        p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(-0.284496736f));
        p = _mm256_fmadd_ps(p, t, _mm256_set1_ps(0.254829592f));
        __m256 below =
            _mm256_mul_ps(_mm256_mul_ps(p, t), exponential(_mm256_fnmadd_ps(z, z, _mm256_setzero_ps())));
        __m256 half = _mm256_mul_ps(size, _mm256_set1_ps(0.5f));
        _mm256_storeu_ps(out + i, _mm256_fnmadd_ps(half, below, _mm256_max_ps(_mm256_setzero_ps(), v)));
    }
    for (; i < n; i++) out[i] = 0.5f * x[i] * erfcf(x[i] * -0.70710678f);
}

#if defined(__AVXVNNI__)
static const struct kernels kernels_with_vnni = {
    "avxvnni",
#else
const struct kernels kernels_avx2 = {
    "avx2",
#endif
    round_group, product_u8, product_u4, product_f32, scores, add_weighted, to_half,
    maximum, exponentials, sum_of_squares, scale_by, swiglu,
    product_bf16_plain, to_bfloat_plain, layer_norm, add, add_products, relu, gelu,
};

#endif
