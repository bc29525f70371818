/* What all loops share: sizes, checks of lengths, words in memory. */
#ifndef FEDAQ_COMMON_H
#define FEDAQ_COMMON_H

#include "loops.h"

#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "only little-endian processors: words in memory are as the format has them"
#endif

/* Values whose codes are held at once when they are made, and when they are used. */
enum { QUANTIZE_BLOCK = 1024, DECODE_BLOCK = 4096 };
/* Wider codes do not fit a byte. */
enum { NARROW = 8, WIDEST = 16 };

#define MOST_CODES ((int64_t)1 << 40)
#define WEYL 0x9E3779B9u /* the odd integer nearest to 2^32 over the golden ratio */

/* Copied into each call, so that what is constant there is so inside. */
#define SPECIAL static inline __attribute__((always_inline))

static inline int64_t packed_bytes(int64_t size, int64_t width)
{
    return (size * width + 7) / 8;
}

static inline int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int holds(int64_t bytes, int64_t size, int64_t width)
{
    return size >= 0 && size <= MOST_CODES && bytes >= packed_bytes(size, width);
}

static inline int are_possible(int64_t bits, int64_t width)
{
    return 1 <= bits && bits <= width && width <= WIDEST;
}

static inline uint64_t load_word(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static inline void store_word(uint8_t *at, uint64_t word)
{
    memcpy(at, &word, sizeof word);
}

/* Return 64 bits, of every `period` of which the lowest `bits` are 1. */
static inline uint64_t mask(uint64_t bits, uint64_t period)
{
    uint64_t found = bits < 64 ? ((uint64_t)1 << bits) - 1 : ~(uint64_t)0;
    for (; period < 64; period *= 2) {
        found |= found << period;
    }
    return found;
}

#endif
