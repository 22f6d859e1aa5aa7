/* AMX's tiles in plain C, in place of funasr_cli/native/src/amx_tiles.h: for CPUs that do not have them.
 *
 * The variable AMX_EMULATION may be "refused" (by the system) or "wrong" (each product too large by 1).
 */
#ifndef FUNASR_AMX_TILES_H
#define FUNASR_AMX_TILES_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local int tile_rows; /* 0 if this thread's tiles are not configured: using them is fatal then */
static _Thread_local int8_t tile_inputs[16][64];

static int amx_emulation_is(const char *what) {
    const char *set = getenv("AMX_EMULATION");
    return set && !strcmp(set, what);
}

static inline int tiles_allowed(void) { return !amx_emulation_is("refused"); }
static inline void tiles_begin(int rows) { tile_rows = rows; }
static inline void tiles_end(void) { tile_rows = 0; }

static inline void tiles_read_inputs(const int8_t *inputs, size_t stride) {
    if (!tile_rows) abort();
    for (int row = 0; row < tile_rows; row++) memcpy(tile_inputs[row], inputs + (size_t)row * stride, 64);
}

static inline void tiles_multiply(const uint8_t *weights, int32_t *sums) {
    if (!tile_rows) abort();
    int32_t excess = amx_emulation_is("wrong");
    for (int row = 0; row < tile_rows; row++)
        for (int output = 0; output < 32; output++) {
            int32_t sum = excess;
            for (int i = 0; i < 64; i++) sum += tile_inputs[row][i] * weights[i / 4 * 128 + output * 4 + i % 4];
            sums[row * 32 + output] = sum;
        }
}

#endif
