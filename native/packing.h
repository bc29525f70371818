/* Groups of eight codes: from bytes or 16-bit words to packed bits, and back.
 *
 * Packing closes up the eight codes of a group inside 64-bit words, in pairs, then pairs of pairs:
 *
 *     -----aaa -----bbb -----ccc -----ddd ...     codes of 3 bits in bytes
 *     ----------aaabbb  ----------cccddd  ...     after one step
 *
 * A step is the same for every group, so compilers make vector instructions of it, for whichever
 * processor. Words are read and written whole, at every `width` bytes, and what they reach too far
 * the next one mends; the last ones of a buffer are copied by the byte. */
#ifndef FEDAQ_PACKING_H
#define FEDAQ_PACKING_H

#include "vectors.h"

/* How eight codes, a byte each, are closed up in a word: masks and distances of the three steps. */
typedef struct {
    uint64_t one, two, four, width;
} Closing;

static inline Closing closing(uint64_t width)
{
    return (Closing){mask(width, 16), mask(2 * width, 32), mask(4 * width, 64), width};
}

static inline uint64_t closed_up(uint64_t word, Closing how)
{
    const uint64_t width = how.width;
    word = (word & how.one) | ((word >> (8 - width)) & (how.one << width));
    word = (word & how.two) | ((word >> (16 - 2 * width)) & (how.two << (2 * width)));
    return (word & how.four) | ((word >> (32 - 4 * width)) & (how.four << (4 * width)));
}

/* Write `bytes` bytes of packed codes from words that hold a group of bytes each. */
static inline void pack_bytes(const uint64_t *words, int64_t bytes, uint64_t width, uint8_t *out)
{
    const Closing how = closing(width);
    const int64_t step = (int64_t)width;
    const int64_t groups = (bytes + step - 1) / step;
    int64_t group = 0;

    if (width == 8) {
        memcpy(out, words, (size_t)bytes);
        return;
    }
#ifdef MOVES_BYTES
    /* Two groups to 16 bytes, of which `width` each are full. */
    uint8_t places[16];
    for (uint64_t i = 0; i < 16; i++) {
        places[i] = (uint8_t)(i < width ? i : i < 2 * width ? i - width + 8 : 255);
    }
    for (; group * step + LONG_AT_ONCE * step + 16 <= bytes; group += LONG_AT_ONCE) {
        Lanes word;
        memcpy(&word, words + group, sizeof word);
        word = (word & how.one) | ((word >> (8 - width)) & (how.one << width));
        word = (word & how.two) | ((word >> (16 - 2 * width)) & (how.two << (2 * width)));
        word = (word & how.four) | ((word >> (32 - 4 * width)) & (how.four << (4 * width)));
        word = moved(word, places);
        for (int pair = 0; pair < LONG_AT_ONCE / 2; pair++) {
            memcpy(out + (group + 2 * pair) * step, (const uint8_t *)&word + 16 * pair, 16);
        }
    }
#endif
    for (; group * step + 8 <= bytes; group++) {
        store_word(out + group * step, closed_up(words[group], how));
    }
    for (; group < groups; group++) {
        const uint64_t word = closed_up(words[group], how);
        memcpy(out + group * step, &word, (size_t)least(step, bytes - group * step));
    }
}

/* Read packed codes into words that hold a group of bytes each: `pack_bytes` backwards. */
static inline void unpack_bytes(
    const uint8_t *data, int64_t bytes, uint64_t bits, uint64_t width, uint64_t *words)
{
    const uint64_t one = mask(width, 16), two = mask(2 * width, 32), four = mask(4 * width, 64);
    const uint64_t code = mask(bits, 8);
    const int64_t step = (int64_t)width;
    const int64_t groups = (bytes + step - 1) / step;
    int64_t group = 0;

    for (; group * step + 8 <= bytes; group++) {
        words[group] = load_word(data + group * step);
    }
    for (; group < groups; group++) {
        words[group] = 0;
        memcpy(&words[group], data + group * step, (size_t)least(step, bytes - group * step));
    }
    for (int64_t i = 0; i < groups; i++) {
        uint64_t word = words[i];
        word = (word & four) | ((word << (32 - 4 * width)) & (four << 32));
        word = (word & two) | ((word << (16 - 2 * width)) & (two << 16));
        word = (word & one) | ((word << (8 - width)) & (one << 8));
        words[i] = word & code;
    }
}

/* Write `bytes` bytes of packed codes from words that hold half a group of 16-bit codes each. */
static inline void pack_wide(uint64_t *words, int64_t bytes, uint64_t width, uint8_t *out)
{
    const uint64_t one = mask(width, 32), two = mask(2 * width, 64);
    const int64_t step = (int64_t)width;
    const int64_t groups = (bytes + step - 1) / step;
    const uint64_t half = 4 * width;
    int64_t group = 0;

    if (width == 16) {
        memcpy(out, words, (size_t)bytes);
        return;
    }
    for (int64_t i = 0; i < 2 * groups; i++) {
        uint64_t word = words[i];
        word = (word & one) | ((word >> (16 - width)) & (one << width));
        words[i] = (word & two) | ((word >> (32 - 2 * width)) & (two << (2 * width)));
    }
    for (; group < groups; group++) {
        const uint64_t first = words[2 * group], second = words[2 * group + 1];
        const uint64_t low = first | second << half, high = second >> (64 - half);
        uint8_t *to = out + group * step;
        if (group * step + 16 <= bytes) {
            store_word(to, low);
            store_word(to + 8, high);
        } else {
            const uint64_t both[2] = {low, high};
            memcpy(to, both, (size_t)least(step, bytes - group * step));
        }
    }
}

/* Read packed codes into words that hold half a group of 16-bit codes each. */
static inline void unpack_wide(
    const uint8_t *data, int64_t bytes, uint64_t bits, uint64_t width, uint64_t *words)
{
    const uint64_t one = mask(width, 32), two = mask(2 * width, 64), four = mask(4 * width, 64);
    const uint64_t code = mask(bits, 16);
    const int64_t step = (int64_t)width;
    const int64_t groups = (bytes + step - 1) / step;
    const uint64_t half = 4 * width;

    for (int64_t group = 0; group < groups; group++) {
        uint64_t both[2] = {0, 0};
        if (group * step + 16 <= bytes) {
            memcpy(both, data + group * step, 16);
        } else {
            memcpy(both, data + group * step, (size_t)least(step, bytes - group * step));
        }
        words[2 * group] = both[0] & four;
        /* At a width of 16, `half` is 64: too much for one shift. */
        words[2 * group + 1] = ((both[0] >> 1 >> (half - 1)) | both[1] << (64 - half)) & four;
    }
    for (int64_t i = 0; i < 2 * groups; i++) {
        uint64_t word = words[i];
        word = (word & two) | ((word << (32 - 2 * width)) & (two << 32));
        word = (word & one) | ((word << (16 - width)) & (one << 16));
        words[i] = word & code;
    }
}

/* Clear what follows `count` codes, up to the end of their last group. */
static inline void clear(void *end, int64_t count, size_t bytes_each)
{
    memset(end, 0, (size_t)(-count & (GROUP - 1)) * bytes_each);
}

/* A block of codes, as bytes or as 16-bit words. */
typedef union {
    uint64_t words[DECODE_BLOCK / 4];
    uint16_t wide[DECODE_BLOCK];
    uint8_t narrow[2 * DECODE_BLOCK];
} Block;

/* Unpack `count` codes from number `start` on, a multiple of GROUP, as bytes. */
static inline const uint8_t *narrow_codes(
    const uint8_t *data, int64_t start, int64_t count, int64_t bits, int64_t width, Block *block)
{
    const uint8_t *at = data + start * width / 8;
    if (width == 8 && bits == 8) {
        return at;
    }
    unpack_bytes(at, packed_bytes(count, width), (uint64_t)bits, (uint64_t)width, block->words);
    return block->narrow;
}

/* Unpack them as 16-bit words. */
static inline const uint16_t *wide_codes(
    const uint8_t *data, int64_t start, int64_t count, int64_t bits, int64_t width, Block *block)
{
    const uint8_t *at = data + start * width / 8;
    unpack_wide(at, packed_bytes(count, width), (uint64_t)bits, (uint64_t)width, block->words);
    return block->wide;
}

#endif
