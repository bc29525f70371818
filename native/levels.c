/* Which versions of the loops there are, and which of them this processor can run. */
#include "loops.h"

#if defined(__x86_64__)
#define HAS(name) __builtin_cpu_supports(name)
#endif

int32_t loops_version(void)
{
    return LOOPS_VERSION;
}

const char *loops_levels(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (HAS("avx512f") && HAS("avx512bw") && HAS("avx512dq") && HAS("avx512vl")) {
        return "avx512 avx2 sse4 base";
    }
    if (HAS("avx2")) {
        return "avx2 sse4 base";
    }
    if (HAS("sse4.1")) {
        return "sse4 base";
    }
#endif
    return "base";
}
