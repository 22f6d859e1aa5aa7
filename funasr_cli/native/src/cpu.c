/* Which instruction sets this CPU and its operating system have. */

#include "internal.h"

#include <string.h>

static int always(void) { return 1; }

#if defined(__x86_64__)
#include <cpuid.h>

/* cpuid is asked directly, since clang 14 does not compile __builtin_cpu_supports("f16c"). Its
 * registers are those of AVX2, which the operating system must support. */
static int has_avx2(void) {
    unsigned a, b, c, d;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __get_cpuid(1, &a, &b, &c, &d) &&
           (c & bit_F16C);
}

static int has_avxvnni(void) {
    unsigned a, b, c, d;
    return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1 << 4);
}

static int has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
}
#elif defined(__aarch64__)
#include <sys/auxv.h>

/* Linux names it asimddp. */
static int has_dot_product(void) { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }
#endif

/* Best first. */
static const struct {
    const struct kernels *kernels;
    int (*is_available)(void);
} known[] = {
#if defined(__x86_64__)
    {&kernels_avx512, has_avx512},
    {&kernels_avxvnni, has_avxvnni},
    {&kernels_avx2, has_avx2},
#elif defined(__aarch64__)
    {&kernels_neon, has_dot_product},
#endif
    {&kernels_scalar, always},
};
enum { KNOWN = sizeof known / sizeof *known };

static const struct kernels *available[KNOWN];
static const char *names[KNOWN + 1];

/* Look once, when the library is loaded. */
__attribute__((constructor)) static void look(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
#endif
    int count = 0;
    for (int i = 0; i < KNOWN; i++)
        if (known[i].is_available()) available[count] = known[i].kernels, names[count++] = known[i].kernels->name;
}

int fn_abi(void) { return FN_ABI; }

#ifndef FN_SOURCES /* build.py defines it */
#define FN_SOURCES "unknown"
#endif
const char *fn_sources(void) { return FN_SOURCES; }

const char *const *fn_instruction_sets(void) { return names; }

const struct kernels *find_kernels(const char *name) {
    for (int i = 0; names[i]; i++)
        if (!name || !strcmp(name, names[i])) return available[i];
    return NULL;
}
