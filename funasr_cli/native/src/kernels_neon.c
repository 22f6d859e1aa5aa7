/* The inner loops with NEON and its dot product of bytes; see kernels_scalar.c for what each computes.
 *
 * The dot product takes signed bytes, so the weights are taken as value - 128, which is the value with its highest
 * bit flipped, and nothing has to be subtracted afterwards.
 */

#include "internal.h"

#if defined(__aarch64__)

#include <arm_neon.h>
#include <math.h>
#include <string.h>

#define ROWS 4     /* that share the loads of a tile: 16 accumulators */
#define QUARTERS 4 /* registers of 4 floats, for the 16 outputs of a tile or 16 values of a row */
#define INLINE static inline __attribute__((always_inline))

/* --- names for what the loops do --- */

INLINE float32x4_t load_half(const uint16_t *x) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(x))); }
INLINE float32x4_t zero(void) { return vdupq_n_f32(0.0f); }

INLINE float reduce_add(const float32x4_t *x) {
    return vaddvq_f32(vaddq_f32(vaddq_f32(x[0], x[1]), vaddq_f32(x[2], x[3])));
}

/* Add the products of 4 weights and 4 inputs to each of 4 sums. */
INLINE int32x4_t add_products(int32x4_t sums, int8x16_t weights, const int8_t *inputs) {
    int32_t four;
    memcpy(&four, inputs, sizeof four);
    return vdotq_s32(sums, weights, vreinterpretq_s8_s32(vdupq_n_s32(four)));
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

INLINE void rows_u8(const int n, const uint8_t *block, const int has_offset, const struct operand *x, int first,
                    float *out, size_t stride) {
    size_t columns = (size_t)x->columns, groups = columns / GROUP, start = (size_t)first * groups;
    const int8_t *rounded = x->rounded + (size_t)first * columns;
    float32x4_t totals[ROWS][QUARTERS];
    for (int row = 0; row < n; row++)
        for (int q = 0; q < QUARTERS; q++) totals[row][q] = zero();
    for (size_t group = 0; group < groups; group++, block += block_size(has_offset), rounded += GROUP) {
        int32x4_t dots[ROWS][QUARTERS];
        for (int row = 0; row < n; row++)
            for (int q = 0; q < QUARTERS; q++) dots[row][q] = vdupq_n_s32(0);
        for (int i = 0; i < GROUP / 4; i++) {
            if (n > 1) prefetch(block + 64 * i); /* one row waits for memory in any case */
            for (int q = 0; q < QUARTERS; q++) {
                uint8x16_t stored = vld1q_u8(block + 64 * i + 16 * q);
                int8x16_t weights = vreinterpretq_s8_u8(veorq_u8(stored, vdupq_n_u8(0x80))); /* value - 128 */
                for (int row = 0; row < n; row++)
                    dots[row][q] = add_products(dots[row][q], weights, rounded + (size_t)row * columns + 4 * i);
            }
        }
        const float *scales = (const float *)(block + BLOCK_VALUES), *offsets = scales + TILE;
        for (int row = 0; row < n; row++) {
            size_t at = start + (size_t)row * groups + group;
            float sum = (float)x->sums[at] * x->scales[at];
            for (int q = 0; q < QUARTERS; q++) {
                float32x4_t dot = vmulq_n_f32(vcvtq_f32_s32(dots[row][q]), x->scales[at]);
                totals[row][q] = vfmaq_f32(totals[row][q], dot, vld1q_f32(scales + 4 * q));
                if (has_offset) totals[row][q] = vfmaq_n_f32(totals[row][q], vld1q_f32(offsets + 4 * q), sum);
            }
        }
    }
    for (int row = 0; row < n; row++)
        for (int q = 0; q < QUARTERS; q++) vst1q_f32(out + (size_t)row * stride + 4 * q, totals[row][q]);
}

INLINE void rows_f32(const int n, const float *tile, const struct operand *x, int first, float *out, size_t stride) {
    const float *values = x->values + (size_t)first * (size_t)x->columns;
    float32x4_t totals[ROWS][QUARTERS];
    for (int row = 0; row < n; row++)
        for (int q = 0; q < QUARTERS; q++) totals[row][q] = zero();
    for (int column = 0; column < x->columns; column++)
        for (int q = 0; q < QUARTERS; q++) {
            float32x4_t weights = vld1q_f32(tile + (size_t)column * TILE + 4 * q);
            for (int row = 0; row < n; row++) {
                float input = values[(size_t)row * (size_t)x->columns + (size_t)column];
                totals[row][q] = vfmaq_n_f32(totals[row][q], weights, input);
            }
        }
    for (int row = 0; row < n; row++)
        for (int q = 0; q < QUARTERS; q++) vst1q_f32(out + (size_t)row * stride + 4 * q, totals[row][q]);
}

/* The number of rows as a constant, so that the accumulators stay in registers. */
#define FOR_ROWS(n, call)                                                                                      \
    switch (n) {                                                                                               \
    case 1: call(1); break;                                                                                    \
    case 2: call(2); break;                                                                                    \
    case 3: call(3); break;                                                                                    \
    default: call(4); break;                                                                                   \
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
    for (; n > 0; n -= ROWS, first += ROWS, out += ROWS * stride) {
#define DENSE(count) rows_f32(count, tile, x, first, out, stride)
        FOR_ROWS(n, DENSE)
    }
}

/* --- attention; d is a multiple of 16 --- */

static void scores(const float *query, const uint16_t *keys, int n, int d, float *out) {
    for (int position = 0; position < n; position++, keys += d) {
        float32x4_t totals[QUARTERS] = {zero(), zero(), zero(), zero()};
        for (int i = 0; i < d; i += 16)
            for (int q = 0; q < QUARTERS; q++)
                totals[q] = vfmaq_f32(totals[q], vld1q_f32(query + i + 4 * q), load_half(keys + i + 4 * q));
        out[position] = reduce_add(totals);
    }
}

static void add_weighted(const float *weights, const uint16_t *values, int n, int d, float *out) {
    for (int i = 0; i < d; i += 16) {
        float32x4_t totals[QUARTERS];
        for (int q = 0; q < QUARTERS; q++) totals[q] = vld1q_f32(out + i + 4 * q);
        for (int position = 0; position < n; position++) {
            const uint16_t *here = values + (size_t)position * (size_t)d + i;
            for (int q = 0; q < QUARTERS; q++)
                totals[q] = vfmaq_n_f32(totals[q], load_half(here + 4 * q), weights[position]);
        }
        for (int q = 0; q < QUARTERS; q++) vst1q_f32(out + i + 4 * q, totals[q]);
    }
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

const struct kernels kernels_neon = {
    "neon", round_group, product_u8, product_f32, scores, add_weighted, to_half,
    maximum, exponentials, sum_of_squares, scale_by, swiglu,
};

#endif
