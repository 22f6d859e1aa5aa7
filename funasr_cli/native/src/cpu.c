/* Which instruction sets this CPU and its operating system have. */

#include "internal.h"

#include <string.h>

#if defined(__x86_64__)
static int has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

static int has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
}
#endif

int fn_abi(void) { return FN_ABI; }

#ifndef FN_SOURCES /* build.py defines it */
#define FN_SOURCES "unknown"
#endif
const char *fn_sources(void) { return FN_SOURCES; }

const char *const *fn_instruction_sets(void) {
    static const char *names[4];
    int n = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (has_avx512()) names[n++] = kernels_avx512.name;
    if (has_avx2()) names[n++] = kernels_avx2.name;
#endif
    names[n++] = kernels_scalar.name;
    names[n] = NULL;
    return names;
}

const struct kernels *find_kernels(const char *name) {
    static const struct kernels *const all[] = {
#if defined(__x86_64__)
        &kernels_avx512, &kernels_avx2,
#endif
        &kernels_scalar};
    for (const char *const *has = fn_instruction_sets(); *has; has++) {
        if (name && strcmp(name, *has)) continue;
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            if (!strcmp(all[i]->name, *has)) return all[i];
    }
    return NULL;
}
