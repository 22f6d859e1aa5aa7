/* The inner loops of kernels_avx2.c with AVX-VNNI, which multiplies and adds 4 bytes in one instruction: CPUs
 * without AVX512 have it since Intel's Alder Lake. */

#include "kernels_avx2.c"
