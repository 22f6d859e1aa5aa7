/* Which instruction sets this CPU and its operating system have. */

#include "internal.h"

#include <string.h>

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

static int has_bf16(void) {
    unsigned a, b, c, d;
    return has_avx512() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1 << 5);
}
#elif defined(__aarch64__)
#include <sys/auxv.h>

/* Linux names it asimddp. */
static int has_dot_product(void) { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }
#endif

static const struct kernels *available[6]; /* best first */
static const char *names[sizeof available / sizeof *available + 1];

static void add(const struct kernels *kernels) {
    int count = 0;
    while (names[count]) count++;
    if (kernels) available[count] = kernels, names[count] = kernels->name;
}

/* Look once, when the library is loaded. */
__attribute__((constructor)) static void look(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const struct kernels *bf16 = has_bf16() ? kernels_avx512bf16() : NULL;
    if (has_avx512()) add(kernels_amx(bf16 ? bf16 : &kernels_avx512));
    add(bf16);
    if (has_avx512()) add(&kernels_avx512);
    if (has_avxvnni()) add(kernels_avxvnni());
    if (has_avx2()) add(&kernels_avx2);
#elif defined(__aarch64__)
    if (has_dot_product()) add(&kernels_neon);
#endif
    add(&kernels_scalar);
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
