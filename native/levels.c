/* Which versions of the loops there are, and which of them this processor can run. */
#include "loops.h"

#if defined(__x86_64__)
#include <cpuid.h>

/* Return the registers of vectors that the system keeps for a process: bits of XCR0. */
static uint32_t kept_registers(void)
{
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static int has(uint32_t register_of_bits, uint32_t bits)
{
    return (register_of_bits & bits) == bits;
}

/* What `compile.py` lets each level use. Compilers have a call for this, but not all of them link
 * what answers it. */
static const char *x86_levels(void)
{
    const uint32_t sse4 = bit_SSE4_1 | bit_POPCNT | bit_SSSE3;
    const uint32_t avx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    const uint32_t kept_by_avx = 0x06, kept_by_avx512 = 0xE6;
    uint32_t a, b, c, d, kept;

    if (!__get_cpuid(1, &a, &b, &c, &d) || !has(c, sse4)) {
        return "base";
    }
    kept = has(c, bit_OSXSAVE | bit_AVX) ? kept_registers() : 0;
    if (!has(kept, kept_by_avx) || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !has(b, bit_AVX2)) {
        return "sse4 base";
    }
    return has(b, avx512) && has(kept, kept_by_avx512) ? "avx512 avx2 sse4 base" : "avx2 sse4 base";
}
#endif

int32_t loops_version(void)
{
    return LOOPS_VERSION;
}

const char *loops_levels(void)
{
#if defined(__x86_64__)
    return x86_levels();
#else
    return "base";
#endif
}
