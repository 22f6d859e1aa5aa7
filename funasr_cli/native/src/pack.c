/* Packing of matrices: into tiles of TILE outputs whose inputs follow each other, see internal.h.
 *
 * Rows that are missing in the last tile are zero.
 */

#include "internal.h"

#include <math.h>
#include <string.h>

static int tiles(int32_t rows) { return (rows + TILE - 1) / TILE; }

size_t fn_packed_size(int32_t rows, int32_t columns, int32_t weights, int32_t has_offset) {
    struct fn_matrix m = {.rows = rows, .columns = columns, .weights = weights, .has_offset = has_offset};
    return (size_t)tiles(rows) * tile_size(&m);
}

static void pack_f32(float *packed, const float *values, int32_t rows, int32_t columns) {
    for (int tile = 0; tile < tiles(rows); tile++)
        for (int column = 0; column < columns; column++)
            for (int output = 0; output < TILE; output++) {
                int row = tile * TILE + output;
                *packed++ = row < rows ? values[(size_t)row * columns + column] : 0.0f;
            }
}

static void pack_bf16(uint16_t *packed, const float *values, int32_t rows, int32_t columns) {
    for (int tile = 0; tile < tiles(rows); tile++)
        for (int pair = 0; pair < whole_depth(columns) / 2; pair++)
            for (int output = 0; output < TILE; output++)
                for (int column = 2 * pair; column < 2 * pair + 2; column++) {
                    int row = tile * TILE + output, is_inside = row < rows && column < columns;
                    *packed++ = is_inside ? bfloat_of(values[(size_t)row * columns + column]) : 0;
                }
}

/* Place of one value within the values of its block. */
static inline int place(int output, int input) { return (input / 4 * TILE + output) * 4 + input % 4; }

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
    if (rows < 1 || columns < 1 || (weights == FN_U8 && columns % GROUP)) return FN_BAD_ARGUMENT;
    if (weights != FN_U8) {
        if (weights == FN_F32) pack_f32(packed, values, rows, columns);
        else pack_bf16(packed, values, rows, columns);
        return FN_OK;
    }
    uint8_t *block = packed;
    for (int tile = 0; tile < tiles(rows); tile++)
        for (int group = 0; group < columns / GROUP; group++, block += block_size(0))
            for (int output = 0; output < TILE; output++) {
                int row = tile * TILE + output;
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
    for (int tile = 0; tile < tiles(rows); tile++)
        for (int g = 0; g < columns / GROUP; g++, block += block_size(1))
            for (int output = 0; output < TILE; output++) {
                int row = tile * TILE + output;
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

/* One value of a packed matrix, of an output of a tile. */
static float unpacked(const struct fn_matrix *m, const uint8_t *tile, int output, int input) {
    if (m->weights == FN_F32) return ((const float *)(const void *)tile)[input * TILE + output];
    if (m->weights == FN_BF16)
        return from_bfloat(((const uint16_t *)(const void *)tile)[(input / 2 * TILE + output) * 2 + input % 2]);
    const uint8_t *block = tile + (size_t)(input / GROUP) * block_size(m->has_offset);
    const float *scales = (const float *)(const void *)(block + BLOCK_VALUES);
    int value = block[place(output, input % GROUP)] - 128;
    return (float)value * scales[output] + (m->has_offset ? scales[TILE + output] : 0.0f);
}

int fn_unpack(const struct fn_matrix *m, const int32_t *numbers, int32_t n, float *out) {
    for (int i = 0; i < n; i++) {
        if (numbers[i] < 0 || numbers[i] >= m->rows) return FN_BAD_ARGUMENT;
        const uint8_t *tile = (const uint8_t *)m->data + (size_t)(numbers[i] / TILE) * tile_size(m);
        for (int input = 0; input < m->columns; input++) *out++ = unpacked(m, tile, numbers[i] % TILE, input);
    }
    return FN_OK;
}
