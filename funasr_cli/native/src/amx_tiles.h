/* AMX's tile registers, behind the few operations that kernels_amx.c needs. A test replaces this file by an
 * emulation in plain C (tests/support/amx_emulation.h).
 *
 * Tiles 0 and 1 hold 32-bit sums of up to 16 rows and the two tiles of a pair, tile 2 holds 64 inputs of each row,
 * and tiles 3 and 4 hold weights: 16 times 4 inputs of 16 outputs.
 */
#ifndef FUNASR_AMX_TILES_H
#define FUNASR_AMX_TILES_H

#include <cpuid.h>
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Return whether the CPU has tiles of 8 bits, and the system keeps their state and grants it to this process. */
static inline int tiles_allowed(void) {
    enum { OSXSAVE = 1 << 27, AMX_TILE = 1 << 24, AMX_INT8 = 1 << 25, TILE_STATES = 3 << 17 };
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* of arch_prctl */
    unsigned a, b, c, d, states;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & OSXSAVE)) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & AMX_TILE) || !(d & AMX_INT8)) return 0;
    __asm__("xgetbv" : "=a"(states), "=d"(d) : "c"(0));
    return (states & TILE_STATES) == TILE_STATES && !syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA);
}

/* Have what was written before in memory: some compilers, such as gcc 12, do not know what the instructions
 * read. */
static inline void tiles_wait_for(const void *written) { __asm__ volatile("" : : "r"(written) : "memory"); }

/* Set the sizes of the tiles, for `rows` rows: at each use, since another library may have released the tiles. */
static inline void tiles_begin(int rows) {
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } sizes = {.palette = 1};
    for (int tile = 0; tile < 5; tile++)
        sizes.row_bytes[tile] = 64, sizes.rows[tile] = tile < 3 ? (uint8_t)rows : 16;
    tiles_wait_for(&sizes);
    _tile_loadconfig(&sizes);
}

static inline void tiles_end(void) { _tile_release(); }

/* Read 64 inputs of each row; rows are `stride` bytes apart. */
static inline void tiles_read_inputs(const int8_t *inputs, size_t stride) {
    tiles_wait_for(inputs);
    _tile_loadd(2, inputs, stride);
}

/* Multiply them by weights[16][2][16][4], and write the sums (rows, 2, 16). */
static inline void tiles_multiply(const uint8_t *weights, int32_t *sums) {
    tiles_wait_for(weights);
    _tile_zero(0);
    _tile_zero(1);
    _tile_loadd(3, weights, 128);
    _tile_dpbsud(0, 2, 3);
    _tile_loadd(4, weights + 64, 128);
    _tile_dpbsud(1, 2, 4);
    _tile_stored(0, sums, 128);
    _tile_stored(1, sums + 16, 128);
}

#endif
