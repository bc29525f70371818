/* The random numbers by which values are rounded: a hash of the key and of the place. */
#ifndef FEDAQ_DITHER_H
#define FEDAQ_DITHER_H

#include "vectors.h"

/* Mix 32 bits: `lowbias32` of C. Wellons, "Prospecting for hash functions" (2018). */
static inline uint32_t mixed(uint32_t x)
{
    x ^= x >> 16;
    x *= 0x7FEB352Du;
    x ^= x >> 15;
    x *= 0x846CA68Bu;
    return x ^ x >> 16;
}

#ifdef VECTOR
static inline Words all_mixed(Words x)
{
    x ^= x >> 16;
    x *= 0x7FEB352Du;
    x ^= x >> 15;
    x *= 0x846CA68Bu;
    return x ^ x >> 16;
}
#endif

#endif
