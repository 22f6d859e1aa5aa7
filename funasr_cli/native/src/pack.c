/* Packing of matrices: into pairs of tiles, see internal.h. Rows that are missing in the last pair are zero. */

#include "internal.h"

#include <math.h>
#include <string.h>

size_t fn_packed_size(int32_t rows, int32_t columns, int32_t weights, int32_t has_offset) {
    struct fn_matrix m = {.rows = rows, .columns = columns, .weights = weights, .has_offset = has_offset};
    return (size_t)pairs(&m) * pair_size(&m);
}

static void pack_f32(float *packed, const float *values, int32_t rows, int32_t columns) {
    for (int first = 0; first < rows; first += PAIR)
        for (int column = 0; column < columns; column++)
            for (int output = 0; output < PAIR; output++) {
                int row = first + output;
                *packed++ = row < rows ? values[(size_t)row * columns + column] : 0.0f;
            }
}

static void pack_bf16(uint16_t *packed, const float *values, int32_t rows, int32_t columns) {
    for (int first = 0; first < rows; first += PAIR)
        for (int column = 0; column < whole_depth(columns); column += 2)
            for (int row = first; row < first + PAIR; row++)
                for (int i = column; i < column + 2; i++)
                    *packed++ = row < rows && i < columns ? bfloat_of(values[(size_t)row * columns + i]) : 0;
}

/* The scale of a group of weights: NaN if one of them is not finite, so that no product hides it. */
static float scale_of(const float *values) {
    float peak = 0.0f;
    for (int i = 0; i < GROUP; i++) {
        if (!isfinite(values[i])) return NAN;
        peak = fmaxf(peak, fabsf(values[i]));
    }
    return peak >= TINY ? peak / 127.0f : 0.0f;
}

int fn_pack(void *packed, const float *values, int32_t rows, int32_t columns, int32_t weights) {
    if (rows < 1 || columns < 1 || has_4_bits(weights) || (weights == FN_U8 && columns % GROUP))
        return FN_BAD_ARGUMENT;
    if (weights != FN_U8) {
        if (weights == FN_F32) pack_f32(packed, values, rows, columns);
        else pack_bf16(packed, values, rows, columns);
        return FN_OK;
    }
    uint8_t *block = packed;
    for (int first = 0; first < rows; first += PAIR)
        for (int group = 0; group < columns / GROUP; group++, block += block_size(0))
            for (int output = 0; output < PAIR; output++) {
                int row = first + output;
                const float *from = values + (size_t)row * columns + (size_t)group * GROUP;
                float scale = row < rows ? scale_of(from) : 0.0f;
                ((float *)(block + BLOCK_VALUES))[output] = scale;
                for (int i = 0; i < GROUP; i++) {
                    float rounded = scale > 0.0f ? rintf(from[i] / scale) : 0.0f; /* at most 127, either way */
                    block[place(output, i)] = (uint8_t)(rounded + 128.0f);
                }
            }
    return FN_OK;
}

int fn_pack_affine(void *packed, const uint8_t *values, const float *scales, const float *offsets, int32_t rows,
                   int32_t columns, int32_t group) {
    if (rows < 1 || columns < 1 || columns % GROUP || group < GROUP || group % GROUP || columns % group)
        return FN_BAD_ARGUMENT;
    uint8_t *block = packed;
    for (int first = 0; first < rows; first += PAIR)
        for (int g = 0; g < columns / GROUP; g++, block += block_size(1))
            for (int output = 0; output < PAIR; output++) {
                int row = first + output;
                size_t stated = (size_t)row * (size_t)(columns / group) + (size_t)(g * GROUP / group);
                float scale = row < rows ? scales[stated] : 0.0f, offset = row < rows ? offsets[stated] : 0.0f;
                ((float *)(block + BLOCK_VALUES))[output] = scale;
                /* value * scale + offset = (value - 128) * scale + (offset + 128 * scale) */
                ((float *)(block + BLOCK_VALUES + BLOCK_SCALES))[output] = offset + 128.0f * scale;
                for (int i = 0; i < GROUP; i++)
                    block[place(output, i)] =
                        row < rows ? values[(size_t)row * columns + (size_t)g * GROUP + (size_t)i] : 128;
            }
    return FN_OK;
}

int fn_pack_4_bits(void *packed, const uint8_t *values, const uint16_t *scales, const uint16_t *offsets,
                   int32_t rows, int32_t columns, int32_t group, int32_t weights) {
    if (rows < 1 || columns < 1 || columns % GROUP || group < GROUP || group % GROUP || columns % group ||
        !has_4_bits(weights))
        return FN_BAD_ARGUMENT;
    uint8_t *block = packed;
    for (int first = 0; first < rows; first += PAIR)
        for (int start = 0; start < columns; start += GROUP, block += FOUR_BIT_BLOCK) {
            uint16_t *of_outputs = (uint16_t *)(void *)(block + BLOCK_VALUES / 2);
            memset(block, 0, FOUR_BIT_BLOCK);
            for (int row = first; row < rows && row < first + PAIR; row++) {
                const uint8_t *from = values + (size_t)row * columns + start;
                size_t stated = (size_t)row * (size_t)(columns / group) + (size_t)(start / group);
                int output = row - first, shift = output < TILE ? 0 : 4;
                of_outputs[output] = scales[stated], of_outputs[PAIR + output] = offsets[stated];
                for (int i = 0; i < GROUP; i++)
                    block[(i / 4 * TILE + output % TILE) * 4 + i % 4] |= (uint8_t)((from[i] & 15) << shift);
            }
        }
    return FN_OK;
}

/* One value of a packed matrix, of an output of a pair of tiles. */
static float unpacked(const struct fn_matrix *m, const uint8_t *pair, int output, int input) {
    if (m->weights == FN_F32) return ((const float *)(const void *)pair)[input * PAIR + output];
    if (m->weights == FN_BF16)
        return from_bfloat(((const uint16_t *)(const void *)pair)[(input / 2 * PAIR + output) * 2 + input % 2]);
    if (has_4_bits(m->weights)) {
        const uint8_t *block = pair + input / GROUP * FOUR_BIT_BLOCK;
        const uint16_t *scale = (const uint16_t *)(const void *)(block + BLOCK_VALUES / 2) + output;
        float value = (float)four_bits(block, output, input % GROUP);
        return m->weights == FN_U4_HALF ? value * from_half(scale[0]) + from_half(scale[PAIR])
                                        : value * from_bfloat(scale[0]) + from_bfloat(scale[PAIR]);
    }
    const uint8_t *block = pair + (size_t)(input / GROUP) * block_size(m->has_offset);
    const float *scales = (const float *)(const void *)(block + BLOCK_VALUES);
    int value = block[place(output, input % GROUP)] - 128;
    return (float)value * scales[output] + (m->has_offset ? scales[PAIR + output] : 0.0f);
}

int fn_unpack(const struct fn_matrix *m, const int32_t *numbers, int32_t n, float *out) {
    for (int i = 0; i < n; i++) {
        if (numbers[i] < 0 || numbers[i] >= m->rows) return FN_BAD_ARGUMENT;
        int number = numbers[i] / PAIR;
        const struct fn_matrix *own = holding(m, &number);
        const uint8_t *pair = (const uint8_t *)own->data + (size_t)number * pair_size(own);
        for (int input = 0; input < m->columns; input++) *out++ = unpacked(own, pair, numbers[i] % PAIR, input);
    }
    return FN_OK;
}
