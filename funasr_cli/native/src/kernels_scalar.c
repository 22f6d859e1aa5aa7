/* The inner loops in plain C: the reference that the other instruction sets are compared with. */

#include "internal.h"

#include <math.h>
#include <string.h>

/* Round to the nearest float16, to an even one in the middle of two. */
static uint16_t half_of(float value) {
    uint32_t bits, sign, magnitude;
    memcpy(&bits, &value, sizeof bits);
    sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFF;
    if (magnitude > 0x7F800000) return (uint16_t)(sign | 0x7E00 | (magnitude >> 13 & 1023)); /* NaN */
    if (magnitude >= 0x477FF000) return (uint16_t)(sign | 0x7C00); /* 65,520 or more: infinite */
    if (magnitude < 0x38800000) return (uint16_t)(sign | (uint32_t)rintf(fabsf(value) * 0x1p24f)); /* subnormal */
    /* 13 bits fall away; a carry goes into the exponent. */
    magnitude += 0xFFF + (magnitude >> 13 & 1);
    return (uint16_t)(sign | (magnitude - (112u << 23)) >> 13);
}

static void round_group(const float *x, int8_t *rounded, float *scale, int32_t *sum) {
    float peak = 0.0f;
    int finite = 1;
    for (int i = 0; i < GROUP; i++) {
        finite &= isfinite(x[i]) != 0;
        peak = fmaxf(peak, fabsf(x[i]));
    }
    float inverse = peak >= TINY ? 127.0f / peak : 0.0f;
    *scale = !finite ? NAN : peak >= TINY ? peak / 127.0f : 0.0f;
    *sum = 0;
    for (int i = 0; i < GROUP; i++) {
        float value = rintf(x[i] * inverse);
        rounded[i] = fabsf(value) <= 127.0f ? (int8_t)value : 0;
        *sum += rounded[i];
    }
}

static void product_u8(const uint8_t *pair, int has_offset, const struct operand *x, int first, int n,
                       float *out) {
    int groups = x->columns / GROUP;
    memset(out, 0, (size_t)(n * PAIR) * sizeof(float));
    for (int row = 0; row < n; row++, out += PAIR) {
        const uint8_t *block = pair;
        for (int group = 0; group < groups; group++, block += block_size(has_offset)) {
            size_t at = (size_t)(first + row) * (size_t)groups + (size_t)group;
            const int8_t *values = x->rounded + at * GROUP;
            const float *scales = (const float *)(block + BLOCK_VALUES), *offsets = scales + PAIR;
            for (int output = 0; output < PAIR; output++) {
                int32_t dot = -128 * x->sums[at];
                for (int i = 0; i < GROUP; i++) dot += block[place(output, i)] * values[i];
                out[output] += (float)dot * x->scales[at] * scales[output];
                if (has_offset) out[output] += (float)x->sums[at] * x->scales[at] * offsets[output];
            }
        }
    }
}

static void product_u4(const uint8_t *pair, int is_half, const struct operand *x, int first, int n, float *out) {
    int groups = x->columns / GROUP;
    memset(out, 0, (size_t)(n * PAIR) * sizeof(float));
    for (int row = 0; row < n; row++, out += PAIR) {
        const uint8_t *block = pair;
        for (int group = 0; group < groups; group++, block += FOUR_BIT_BLOCK) {
            size_t at = (size_t)(first + row) * (size_t)groups + (size_t)group;
            const int8_t *values = x->rounded + at * GROUP;
            const uint16_t *scales = (const uint16_t *)(const void *)(block + BLOCK_VALUES / 2);
            for (int output = 0; output < PAIR; output++) {
                uint16_t scale = scales[output], offset = scales[PAIR + output];
                int32_t dot = 0;
                for (int i = 0; i < GROUP; i++) dot += four_bits(block, output, i) * values[i];
                out[output] += (float)dot * x->scales[at] * (is_half ? from_half(scale) : from_bfloat(scale));
                out[output] +=
                    (float)x->sums[at] * x->scales[at] * (is_half ? from_half(offset) : from_bfloat(offset));
            }
        }
    }
}

static void product_f32(const float *pair, const struct operand *x, int first, int n, float *out) {
    memset(out, 0, (size_t)(n * PAIR) * sizeof(float));
    for (int row = 0; row < n; row++, out += PAIR) {
        const float *values = row_of(x, first + row);
        for (int column = 0; column < x->columns; column++)
            for (int output = 0; output < PAIR; output++)
                out[output] += values[column] * pair[(size_t)column * PAIR + (size_t)output];
    }
}

static void scores(const float *queries, int count, const uint16_t *keys, int n, int d, float *out,
                   size_t stride) {
    for (int query = 0; query < count; query++)
        for (int key = 0; key < n; key++) {
            float total = 0.0f;
            for (int i = 0; i < d; i++) total += queries[query * d + i] * from_half(keys[key * d + i]);
            out[(size_t)query * stride + (size_t)key] = total;
        }
}

static void add_weighted(const float *weights, size_t stride, int count, const uint16_t *values, int n, int d,
                         float *out) {
    for (int query = 0; query < count; query++)
        for (int value = 0; value < n; value++)
            for (int i = 0; i < d; i++)
                out[query * d + i] +=
                    weights[(size_t)query * stride + (size_t)value] * from_half(values[value * d + i]);
}

static void to_half(const float *x, int n, uint16_t *out) {
    for (int i = 0; i < n; i++) out[i] = half_of(x[i]);
}

static float maximum(const float *x, int n) {
    float peak = x[0];
    for (int i = 1; i < n; i++) peak = x[i] > peak ? x[i] : peak;
    return peak;
}

static float exponentials(const float *x, int n, float peak, float *out) {
    double sum = 0.0;
    for (int i = 0; i < n; i++) {
        float value = expf(x[i] - peak);
        if (out) out[i] = value;
        sum += (double)value;
    }
    return (float)sum;
}

static float sum_of_squares(const float *x, int n) {
    double sum = 0.0;
    for (int i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    return (float)sum;
}

static void scale_by(const float *x, const float *weights, float factor, int n, float *out) {
    for (int i = 0; i < n; i++) out[i] = x[i] * factor * weights[i];
}

static void swiglu(const float *gate, const float *up, int n, float *out) {
    for (int i = 0; i < n; i++) out[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

/* The second of each pair first, as the instruction does; products of bfloat16 are exact in float32. */
void product_bf16_plain(const uint16_t *pair, const struct operand *x, int first, int n, float *out) {
    memset(out, 0, (size_t)(n * PAIR) * sizeof(float));
    for (int row = 0; row < n; row++, out += PAIR) {
        const uint16_t *values = x->bfloats + (size_t)(first + row) * x->stride;
        for (int column = 0; column < whole_depth(x->columns); column += 2)
            for (int output = 0; output < PAIR; output++) {
                const uint16_t *weights = pair + (size_t)column * PAIR + 2 * output;
                out[output] += from_bfloat(values[column + 1]) * from_bfloat(weights[1]);
                out[output] += from_bfloat(values[column]) * from_bfloat(weights[0]);
            }
    }
}

void to_bfloat_plain(const float *x, int n, uint16_t *out) {
    for (int i = 0; i < n; i++) out[i] = bfloat_of(x[i]);
}

static void layer_norm(const float *x, const float *weights, const float *bias, float eps, int n, float *out) {
    double sum = 0.0, squares = 0.0;
    for (int i = 0; i < n; i++) sum += (double)x[i];
    float mean = (float)(sum / n);
    for (int i = 0; i < n; i++) squares += (double)(x[i] - mean) * (double)(x[i] - mean);
    float factor = 1.0f / sqrtf((float)(squares / n) + eps);
    for (int i = 0; i < n; i++) out[i] = (x[i] - mean) * factor * weights[i] + bias[i];
}

static void add(const float *x, const float *y, int n, float *out) {
    for (int i = 0; i < n; i++) out[i] = x[i] + y[i];
}

static void add_products(const float *x, const float *weights, int n, float *out) {
    for (int i = 0; i < n; i++) out[i] += x[i] * weights[i];
}

static void relu(const float *x, int n, float *out) {
    for (int i = 0; i < n; i++) out[i] = x[i] < 0.0f ? 0.0f : x[i]; /* NaN stays NaN */
}

static void gelu(const float *x, int n, float *out) {
    for (int i = 0; i < n; i++) out[i] = 0.5f * x[i] * erfcf(x[i] * -0.70710678f);
}

const struct kernels kernels_scalar = {
    "scalar", round_group, product_u8, product_u4, product_f32, scores, add_weighted, to_half,
    maximum, exponentials, sum_of_squares, scale_by, swiglu,
    product_bf16_plain, to_bfloat_plain, layer_norm, add, add_products, relu, gelu,
};
