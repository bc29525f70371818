/* The stages of the entropy coder that run once for every byte (`fedaq.codec.entropy`). */
#include "vectors.h"

int32_t LOOP(histogram)(const uint8_t *symbols, int64_t size, int64_t stride, int64_t *counts)
{
    if (size < 0 || stride < 1) {
        return BAD_ARGUMENT;
    }
    for (int64_t i = 0; i < size; i += stride) {
        counts[symbols[i]]++;
    }
    return DONE;
}

static inline uint32_t ones(uint32_t byte)
{
    byte = byte - ((byte >> 1) & 0x55);
    byte = (byte & 0x33) + ((byte >> 2) & 0x33);
    return (byte + (byte >> 4)) & 0x0F;
}

#ifdef MOVES_BYTES
/* Shorter blocks are not worth a table. */
enum { WORTH_A_TABLE = 8192 };
#define EVERY_BYTE 0x0101010101010101u

/* For each byte of eight flags: where each of the eight bytes comes from, or goes to. */
static void fill_places(uint64_t *table, int spread)
{
    for (uint32_t flags = 0; flags < 256; flags++) {
        uint64_t places = ~(uint64_t)0, next = 0;
        for (uint64_t bit = 0; bit < 8; bit++) {
            if (flags >> bit & 1) {
                const uint64_t to = spread ? bit : next, from = spread ? next : bit;
                places = (places & ~((uint64_t)0xFF << (8 * to))) | from << (8 * to);
                next++;
            }
        }
        table[flags] = places;
    }
}

/* Return a flag for each byte of a word: is it another one than those of `usual`? */
static inline uint32_t others_in(uint64_t word, uint64_t usual)
{
    const uint64_t apart = word ^ usual, low = 0x7F * EVERY_BYTE;
    const uint64_t high = (((apart & low) + low) | apart) & ~low;
    /* The highest bits of the bytes meet in the highest byte. */
    return (uint32_t)((high >> 7) * 0x0102040810204080u >> 56);
}
#endif

/* Each byte is written to `others`, and overwritten by the next if it was the mode: a branch would
 * be mispredicted too often. */
int32_t LOOP(split_mode)(
    const uint8_t *symbols, int64_t size, uint8_t mode, uint8_t *flags, uint8_t *others,
    int64_t *found)
{
    const int64_t whole = size & ~(int64_t)7;
    int64_t count = 0, start = 0;
    uint32_t flag = 1u << (size - whole);

    if (size < 0) {
        return BAD_ARGUMENT;
    }
#ifdef MOVES_BYTES
    if (size >= WORTH_A_TABLE) {
        uint64_t places[256];
        fill_places(places, 0);
        for (; start < whole; start += 8) {
            const uint64_t word = load_word(symbols + start);
            const uint32_t eight = others_in(word, mode * EVERY_BYTE);
            /* At most `start` others are there already, so the word fits. */
            store_word(others + count, picked(word, places[eight]));
            flags[start >> 3] = (uint8_t)eight;
            count += ones(eight);
        }
    }
#endif
    for (; start < whole; start += 8) {
        uint32_t eight = 0;
        for (uint32_t bit = 0; bit < 8; bit++) {
            const uint8_t symbol = symbols[start + bit];
            const uint32_t other = symbol != mode;
            others[count] = symbol;
            count += other;
            eight |= other << bit;
        }
        flags[start >> 3] = (uint8_t)eight;
    }
    for (int64_t i = whole; i < size; i++) {
        const uint32_t other = symbols[i] != mode;
        others[count] = symbols[i];
        count += other;
        flag |= other << (i - whole);
    }
    flags[whole >> 3] = (uint8_t)flag;
    *found = count;
    return DONE;
}

int32_t LOOP(count_flags)(
    const uint8_t *flags, int64_t flag_bytes, int64_t size, int64_t *found)
{
    const int64_t last = size / 8;
    uint64_t count = 0;

    if (size < 0 || flag_bytes != last + 1 || flags[last] >> (size % 8) != 1) {
        return BAD_ARGUMENT;
    }
    for (int64_t i = 0; i < last; i++) {
        count += ones(flags[i]);
    }
    *found = (int64_t)count + ones(flags[last]) - 1;
    return DONE;
}

/* The next of `others` is read for every byte, so that no branch decides on the read. */
int32_t LOOP(merge_mode)(
    const uint8_t *flags, int64_t flag_bytes, uint8_t mode, const uint8_t *others, int64_t count,
    uint8_t *out, int64_t size)
{
    int64_t expected, taken = 0, place = 0;

    if (LOOP(count_flags)(flags, flag_bytes, size, &expected) != DONE || count != expected) {
        return BAD_ARGUMENT;
    }
#ifdef MOVES_BYTES
    if (size >= WORTH_A_TABLE) {
        uint64_t places[256];
        fill_places(places, 1);
        for (; place < size / 8 && taken + 8 <= count; place++) {
            const uint64_t from = places[flags[place]];
            const uint64_t is_usual = (from >> 7 & EVERY_BYTE) * 0xFF;
            const uint64_t word = picked(load_word(others + taken), from);
            store_word(out + 8 * place, word | (is_usual & mode * EVERY_BYTE));
            taken += ones(flags[place]);
        }
    }
#endif
    for (; place < size / 8; place++) {
        const uint32_t eight = flags[place];
        for (uint32_t bit = 0; bit < 8; bit++) {
            const uint32_t other = eight >> bit & 1;
            const uint8_t symbol = others[taken];
            out[8 * place + bit] = other ? symbol : mode;
            taken += other;
        }
    }
    for (int64_t i = size & ~(int64_t)7; i < size; i++) {
        const uint32_t other = flags[i >> 3] >> (i & 7) & 1;
        const uint8_t symbol = others[taken];
        out[i] = other ? symbol : mode;
        taken += other;
    }
    return DONE;
}
