/* The inner loops of kernels_avx2.c with AVX-VNNI, which multiplies and adds 4 bytes in one instruction: CPUs
 * without AVX512 have it since Intel's Alder Lake. A compiler that does not know them leaves them out. */

#include "internal.h"

#if defined(__AVXVNNI__)
#include "kernels_avx2.c"

const struct kernels *kernels_avxvnni(void) { return &kernels_with_vnni; }
#elif defined(__x86_64__)
const struct kernels *kernels_avxvnni(void) { return NULL; }
#endif
