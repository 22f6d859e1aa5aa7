/* Which instruction sets this CPU and its operating system have. */

#include "internal.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

/* cpuid is asked directly, since clang 14 does not compile __builtin_cpu_supports("f16c"). Its
 * registers are those of AVX2, which the operating system must support. */
static int has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static int has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

static int has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
}

static int has_bf16(void) {
    unsigned a, b, c, d;
    return has_avx512() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1 << 5);
}
#endif

/* Best first: a CPU that has one has those after it, too. */
static const char *const names[] = {
#if defined(__x86_64__)
    "avx512bf16", "avx512", "avx2",
#endif
    "scalar", NULL};

static const struct kernels *const kernels[] = {
#if defined(__x86_64__)
    &kernels_avx512bf16, &kernels_avx512, &kernels_avx2,
#endif
    &kernels_scalar};

/* The first of `names` that this CPU has. */
static int best(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    return has_bf16() ? 0 : has_avx512() ? 1 : has_avx2() ? 2 : 3;
#else
    return 0;
#endif
}

int fn_abi(void) { return FN_ABI; }

#ifndef FN_SOURCES /* build.py defines it */
#define FN_SOURCES "unknown"
#endif
const char *fn_sources(void) { return FN_SOURCES; }

const char *const *fn_instruction_sets(void) { return names + best(); }

const struct kernels *find_kernels(const char *name) {
    for (int i = best(); names[i]; i++)
        if (!name || !strcmp(name, names[i])) return kernels[i];
    return NULL;
}
