/* The inner loops with NEON and its dot product of bytes; see kernels_scalar.c for what each computes.
 */

#include "internal.h"

#if defined(__aarch64__)

#include <arm_neon.h>
#include <math.h>
#include <string.h>

#define ROWS 4     /* that share the loads of a tile: 16 accumulators */
#define QUARTERS 4 /* registers of 4 numbers: the 16 outputs of a tile, or 16 numbers of a row */
#define INLINE static inline __attribute__((always_inline))

/* --- names for what the loops do --- */

INLINE float32x4_t load_half(const uint16_t *x) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(x))); }
INLINE float32x4_t zero(void) { return vdupq_n_f32(0.0f); }

INLINE float reduce_add(const float32x4_t *x) {
    return vaddvq_f32(vaddq_f32(vaddq_f32(x[0], x[1]), vaddq_f32(x[2], x[3])));
}

/* e^x as in kernels_avx512.c */
INLINE float32x4_t exponential(float32x4_t x) {
    x = vmaxq_f32(x, vdupq_n_f32(-87.3f)); /* NaN stays NaN */
    x = vminq_f32(x, vdupq_n_f32(88.3f));
    float32x4_t n = vrndnq_f32(vmulq_f32(x, vdupq_n_f32(1.44269504f)));
    float32x4_t r = vfmsq_f32(x, n, vdupq_n_f32(0.693359375f));
    r = vfmsq_f32(r, n, vdupq_n_f32(-2.12194440e-4f));
    float32x4_t p = vdupq_n_f32(1.9875691500e-4f);
    p = vfmaq_f32(vdupq_n_f32(1.3981999507e-3f), p, r);
    p = vfmaq_f32(vdupq_n_f32(8.3334519073e-3f), p, r);
    p = vfmaq_f32(vdupq_n_f32(4.1665795894e-2f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.6666665459e-1f), p, r);
    p = vfmaq_f32(vdupq_n_f32(5.0000001201e-1f), p, r);
    p = vfmaq_f32(vaddq_f32(r, vdupq_n_f32(1.0f)), vmulq_f32(p, r), r);
    int32x4_t bits = vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23);
    return vmulq_f32(p, vreinterpretq_f32_s32(bits));
}

/* --- products --- */

static void round_group(const float *x, int8_t *rounded, float *scale, int32_t *sum) {
    float32x4_t peaks = zero();
    uint32x4_t finite = vdupq_n_u32(~0u);
    for (int i = 0; i < GROUP; i += 4) {
        float32x4_t v = vld1q_f32(x + i), nothing = vsubq_f32(v, v); /* NaN, if v is not finite */
        finite = vandq_u32(finite, vceqq_f32(nothing, nothing));
        peaks = vmaxnmq_f32(peaks, vabsq_f32(v));
    }
    float peak = vmaxvq_f32(peaks);
    float32x4_t inverse = vdupq_n_f32(peak >= TINY ? 127.0f / peak : 0.0f);
    int32x4_t sums = vdupq_n_s32(0);
    for (int i = 0; i < GROUP; i += 8) {
        int32x4_t low = vcvtnq_s32_f32(vmulq_f32(vld1q_f32(x + i), inverse)); /* 0, if NaN */
        int32x4_t high = vcvtnq_s32_f32(vmulq_f32(vld1q_f32(x + i + 4), inverse));
        sums = vaddq_s32(sums, vaddq_s32(low, high));
        vst1_s8(rounded + i, vqmovn_s16(vcombine_s16(vqmovn_s32(low), vqmovn_s32(high))));
    }
    int bad = !vminvq_u32(finite);
    *scale = bad ? NAN : peak >= TINY ? peak / 127.0f : 0.0f;
    *sum = bad ? 0 : vaddvq_s32(sums);
}

/* The number of rows as a constant, so that the accumulators stay in registers. */
#define FOR_ROWS(n, call)                                                                                      \
    switch (n) {                                                                                               \
    case 1: call(1); break;                                                                                    \
    case 2: call(2); break;                                                                                    \
    case 3: call(3); break;                                                                                    \
    default: call(4); break;                                                                                   \
    }

#include "products_neon.h"

/* One tile of a pair. */
INLINE void rows_f32(const int n, const float *tile, const struct operand *x, int first, float *out) {
    const float *values = row_of(x, first);
    float32x4_t totals[ROWS][QUARTERS];
    for (int row = 0; row < n; row++)
        for (int q = 0; q < QUARTERS; q++) totals[row][q] = zero();
    for (int column = 0; column < x->columns; column++, tile += PAIR)
        for (int q = 0; q < QUARTERS; q++) {
            float32x4_t weights = vld1q_f32(tile + 4 * q);
            for (int row = 0; row < n; row++) {
                float input = values[(size_t)row * x->stride + (size_t)column];
                totals[row][q] = vfmaq_n_f32(totals[row][q], weights, input);
            }
        }
    for (int row = 0; row < n; row++, out += PAIR)
        for (int q = 0; q < QUARTERS; q++) vst1q_f32(out + 4 * q, totals[row][q]);
}

static void product_f32(const float *pair, const struct operand *x, int first, int n, float *out) {
    for (int tile = 0; tile < PAIR; tile += TILE)
        for (int row = 0; row < n; row += ROWS) {
#define DENSE(count) rows_f32(count, pair + tile, x, first + row, out + row * PAIR + tile)
            FOR_ROWS(n - row, DENSE)
        }
}

/* One tile of a pair, computed in float32, since not every CPU with the dot product of bytes has that of bfloat16.
 * Products of bfloat16 are exact in it, so this gives what kernels_scalar.c does. A register holds weights of 4
 * outputs, for 2 inputs each. */
INLINE void rows_bf16(const int n, const uint16_t *tile, const struct operand *x, int first, float *out) {
    const uint16_t *values = x->bfloats + (size_t)first * x->stride;
    float32x4_t totals[ROWS][QUARTERS];
    for (int row = 0; row < n; row++)
        for (int q = 0; q < QUARTERS; q++) totals[row][q] = zero();
    for (int column = 0; column < whole_depth(x->columns); column += 2, tile += 2 * PAIR)
        for (int q = 0; q < QUARTERS; q++) {
            uint32x4_t both = vreinterpretq_u32_u16(vld1q_u16(tile + 8 * q));
            float32x4_t one = vreinterpretq_f32_u32(vshlq_n_u32(both, 16));
            float32x4_t other = vreinterpretq_f32_u32(vandq_u32(both, vdupq_n_u32(0xFFFF0000)));
            for (int row = 0; row < n; row++) {
                const uint16_t *inputs = values + (size_t)row * x->stride + (size_t)column;
                totals[row][q] = vfmaq_n_f32(totals[row][q], other, from_bfloat(inputs[1]));
                totals[row][q] = vfmaq_n_f32(totals[row][q], one, from_bfloat(inputs[0]));
            }
        }
    for (int row = 0; row < n; row++, out += PAIR)
        for (int q = 0; q < QUARTERS; q++) vst1q_f32(out + 4 * q, totals[row][q]);
}

static void product_bf16(const uint16_t *pair, const struct operand *x, int first, int n, float *out) {
    for (int tile = 0; tile < PAIR; tile += TILE)
        for (int row = 0; row < n; row += ROWS) {
#define HALVED(count) rows_bf16(count, pair + 2 * tile, x, first + row, out + row * PAIR + tile)
            FOR_ROWS(n - row, HALVED)
        }
}

/* As bfloat_of: NaN keeps its upper half, and becomes a quiet one. */
static void to_bfloat(const float *x, int n, uint16_t *out) {
    int i = 0;
    for (; i + 4 <= n; i += 4) {
        uint32x4_t bits = vreinterpretq_u32_f32(vld1q_f32(x + i)), high = vshrq_n_u32(bits, 16);
        uint32x4_t odd = vandq_u32(high, vdupq_n_u32(1)), half = vdupq_n_u32(0x7FFF);
        uint32x4_t rounded = vshrq_n_u32(vaddq_u32(vaddq_u32(bits, half), odd), 16);
        uint32x4_t is_nan = vcgtq_u32(vandq_u32(bits, vdupq_n_u32(0x7FFFFFFF)), vdupq_n_u32(0x7F800000));
        vst1_u16(out + i, vmovn_u32(vbslq_u32(is_nan, vorrq_u32(high, vdupq_n_u32(0x40)), rounded)));
    }
    for (; i < n; i++) out[i] = bfloat_of(x[i]);
}

/* --- attention; d is a multiple of 16. Queries are taken in twos, which share what is read. --- */

INLINE void scores_of(const int count, const float *queries, const uint16_t *keys, int n, int d, float *out,
                      size_t stride) {
    for (int key = 0; key < n; key++, keys += d) {
        float32x4_t totals[2][QUARTERS];
        for (int query = 0; query < count; query++)
            for (int q = 0; q < QUARTERS; q++) totals[query][q] = zero();
        for (int i = 0; i < d; i += 16)
            for (int q = 0; q < QUARTERS; q++) {
                float32x4_t values = load_half(keys + i + 4 * q);
                for (int query = 0; query < count; query++) {
                    float32x4_t four = vld1q_f32(queries + query * d + i + 4 * q);
                    totals[query][q] = vfmaq_f32(totals[query][q], four, values);
                }
            }
        for (int query = 0; query < count; query++)
            out[(size_t)query * stride + (size_t)key] = reduce_add(totals[query]);
    }
}

static void scores(const float *queries, int count, const uint16_t *keys, int n, int d, float *out,
                   size_t stride) {
    for (; count > 1; count -= 2, queries += 2 * d, out += 2 * stride)
        scores_of(2, queries, keys, n, d, out, stride);
    if (count) scores_of(1, queries, keys, n, d, out, stride);
}

/* 16 numbers of each value, from the first one on. */
INLINE void add_lanes(const int count, const float *weights, size_t stride, const uint16_t *values, int n, int d,
                      float *out) {
    float32x4_t totals[2][QUARTERS];
    for (int query = 0; query < count; query++)
        for (int q = 0; q < QUARTERS; q++) totals[query][q] = vld1q_f32(out + query * d + 4 * q);
    for (int value = 0; value < n; value++, values += d)
        for (int q = 0; q < QUARTERS; q++) {
            float32x4_t four = load_half(values + 4 * q);
            for (int query = 0; query < count; query++) {
                float weight = weights[(size_t)query * stride + (size_t)value];
                totals[query][q] = vfmaq_n_f32(totals[query][q], four, weight);
            }
        }
    for (int query = 0; query < count; query++)
        for (int q = 0; q < QUARTERS; q++) vst1q_f32(out + query * d + 4 * q, totals[query][q]);
}

static void add_weighted(const float *weights, size_t stride, int count, const uint16_t *values, int n, int d,
                         float *out) {
    for (; count > 1; count -= 2, weights += 2 * stride, out += 2 * d)
        for (int i = 0; i < d; i += 16) add_lanes(2, weights, stride, values + i, n, d, out + i);
    for (int i = 0; count && i < d; i += 16) add_lanes(1, weights, stride, values + i, n, d, out + i);
}

static void to_half(const float *x, int n, uint16_t *out) {
    for (int i = 0; i < n; i += 4) vst1_u16(out + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(x + i))));
}

/* --- whole rows, of any length: 4 or 16 values at a time, then the rest one by one --- */

static float maximum(const float *x, int n) {
    float32x4_t peaks = vdupq_n_f32(x[0]);
    int i = 0;
    for (; i + 4 <= n; i += 4) peaks = vmaxnmq_f32(peaks, vld1q_f32(x + i));
    float peak = vmaxnmvq_f32(peaks);
    for (; i < n; i++) peak = x[i] > peak ? x[i] : peak;
    return peak;
}

static float exponentials(const float *x, int n, float peak, float *out) {
    float32x4_t sums[QUARTERS] = {zero(), zero(), zero(), zero()};
    int i = 0;
    for (; i + 16 <= n; i += 16)
        for (int q = 0; q < QUARTERS; q++) {
            float32x4_t values = exponential(vsubq_f32(vld1q_f32(x + i + 4 * q), vdupq_n_f32(peak)));
            if (out) vst1q_f32(out + i + 4 * q, values);
            sums[q] = vaddq_f32(sums[q], values);
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
    float32x4_t sums[QUARTERS] = {zero(), zero(), zero(), zero()};
    int i = 0;
    for (; i + 16 <= n; i += 16)
        for (int q = 0; q < QUARTERS; q++) {
            float32x4_t values = vld1q_f32(x + i + 4 * q);
            sums[q] = vfmaq_f32(sums[q], values, values);
        }
    float sum = reduce_add(sums);
    for (; i < n; i++) sum += x[i] * x[i];
    return sum;
}

static void scale_by(const float *x, const float *weights, float factor, int n, float *out) {
    int i = 0;
    for (; i + 4 <= n; i += 4)
        vst1q_f32(out + i, vmulq_f32(vmulq_n_f32(vld1q_f32(x + i), factor), vld1q_f32(weights + i)));
    for (; i < n; i++) out[i] = x[i] * factor * weights[i];
}

static void swiglu(const float *gate, const float *up, int n, float *out) {
    int i = 0;
    for (; i + 4 <= n; i += 4) {
        float32x4_t g = vld1q_f32(gate + i);
        float32x4_t below = vaddq_f32(vdupq_n_f32(1.0f), exponential(vnegq_f32(g)));
        vst1q_f32(out + i, vmulq_f32(vdivq_f32(g, below), vld1q_f32(up + i)));
    }
    for (; i < n; i++) out[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

/* --- whole rows of networks with layer norms --- */

static void layer_norm(const float *x, const float *weights, const float *bias, float eps, int n, float *out) {
    float32x4_t sums = zero(), squares = zero();
    int i = 0;
    for (; i + 4 <= n; i += 4) sums = vaddq_f32(sums, vld1q_f32(x + i));
    float sum = vaddvq_f32(sums);
    for (; i < n; i++) sum += x[i];
    float mean = sum / (float)n;
    for (i = 0; i + 4 <= n; i += 4) {
        float32x4_t from_mean = vsubq_f32(vld1q_f32(x + i), vdupq_n_f32(mean));
        squares = vfmaq_f32(squares, from_mean, from_mean);
    }
    float variance = vaddvq_f32(squares);
    for (; i < n; i++) variance += (x[i] - mean) * (x[i] - mean);
    float factor = 1.0f / sqrtf(variance / (float)n + eps);
    for (i = 0; i + 4 <= n; i += 4) {
        float32x4_t normed = vmulq_n_f32(vsubq_f32(vld1q_f32(x + i), vdupq_n_f32(mean)), factor);
        vst1q_f32(out + i, vfmaq_f32(vld1q_f32(bias + i), normed, vld1q_f32(weights + i)));
    }
    for (; i < n; i++) out[i] = (x[i] - mean) * factor * weights[i] + bias[i];
}

static void add(const float *x, const float *y, int n, float *out) {
    int i = 0;
    for (; i + 4 <= n; i += 4) vst1q_f32(out + i, vaddq_f32(vld1q_f32(x + i), vld1q_f32(y + i)));
    for (; i < n; i++) out[i] = x[i] + y[i];
}

static void add_products(const float *x, const float *weights, int n, float *out) {
    int i = 0;
    for (; i + 4 <= n; i += 4)
        vst1q_f32(out + i, vfmaq_f32(vld1q_f32(out + i), vld1q_f32(x + i), vld1q_f32(weights + i)));
    for (; i < n; i++) out[i] += x[i] * weights[i];
}

static void relu(const float *x, int n, float *out) {
    int i = 0;
    for (; i + 4 <= n; i += 4) vst1q_f32(out + i, vmaxq_f32(vld1q_f32(x + i), zero())); /* NaN stays NaN */
    for (; i < n; i++) out[i] = x[i] < 0.0f ? 0.0f : x[i];
}

/* As in kernels_avx512.c */
static void gelu(const float *x, int n, float *out) {
    int i = 0;
    for (; i + 4 <= n; i += 4) {
        float32x4_t v = vld1q_f32(x + i), size = vabsq_f32(v), one = vdupq_n_f32(1.0f);
        float32x4_t z = vmulq_n_f32(size, 0.70710678f);
        float32x4_t t = vdivq_f32(one, vfmaq_n_f32(one, z, 0.3275911f));
        float32x4_t p = vdupq_n_f32(1.061405429f);
        p = vfmaq_f32(vdupq_n_f32(-1.453152027f), p, t);
        p = vfmaq_f32(vdupq_n_f32(1.421413741f), p, t);
        p = vfmaq_f32(vdupq_n_f32(-0.284496736f), p, t);
        p = vfmaq_f32(vdupq_n_f32(0.254829592f), p, t);
        float32x4_t below = vmulq_f32(vmulq_f32(p, t), exponential(vnegq_f32(vmulq_f32(z, z))));
        vst1q_f32(out + i, vfmsq_f32(vmaxq_f32(v, zero()), vmulq_n_f32(size, 0.5f), below));
    }
    for (; i < n; i++) out[i] = 0.5f * x[i] * erfcf(x[i] * -0.70710678f);
}

const struct kernels kernels_neon = {
    "neon", round_group, product_u8, product_u4, product_f32, scores, add_weighted, to_half,
    maximum, exponentials, sum_of_squares, scale_by, swiglu,
    product_bf16, to_bfloat, layer_norm, add, add_products, relu, gelu,
};

#endif
