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

/* Not instrumented by sanitizers, which would make most of their tests' time of it: all its arrays are local, and
 * `tiles_multiply` copies what belongs to the library. */
__attribute__((no_sanitize("address", "undefined"))) static void tiles_add_products(
    int32_t sums[32], const int8_t inputs[64], const uint8_t weights[16][32][4]) {
    for (int group = 0; group < 16; group++)
        for (int output = 0; output < 32; output++)
            for (int i = 0; i < 4; i++) sums[output] += inputs[4 * group + i] * weights[group][output][i];
}

static inline void tiles_multiply(const uint8_t *weights, int32_t *sums) {
    if (!tile_rows) abort();
    int32_t excess = amx_emulation_is("wrong");
    uint8_t tile_weights[16][32][4];
    memcpy(tile_weights, weights, sizeof tile_weights);
    for (int row = 0; row < tile_rows; row++) {
        int32_t tile_sums[32];
        for (int output = 0; output < 32; output++) tile_sums[output] = excess;
        tiles_add_products(tile_sums, tile_inputs[row], tile_weights);
        memcpy(sums + row * 32, tile_sums, sizeof tile_sums);
    }
}

#endif
