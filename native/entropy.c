/* The stages of the entropy coder that run once for every byte (`fedaq.codec.entropy`). */
#include "common.h"

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

/* Each byte is written to `others`, and overwritten by the next if it was the mode: a branch would
 * be mispredicted too often. */
int32_t LOOP(split_mode)(
    const uint8_t *symbols, int64_t size, uint8_t mode, uint8_t *flags, uint8_t *others,
    int64_t *found)
{
    const int64_t whole = size & ~(int64_t)7;
    int64_t count = 0;
    uint32_t flag = 1u << (size - whole);

    if (size < 0) {
        return BAD_ARGUMENT;
    }
    for (int64_t start = 0; start < whole; start += 8) {
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

static inline uint32_t ones(uint32_t byte)
{
    byte = byte - ((byte >> 1) & 0x55);
    byte = (byte & 0x33) + ((byte >> 2) & 0x33);
    return (byte + (byte >> 4)) & 0x0F;
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
    int64_t expected, taken = 0;

    if (LOOP(count_flags)(flags, flag_bytes, size, &expected) != DONE || count != expected) {
        return BAD_ARGUMENT;
    }
    for (int64_t place = 0; place < size / 8; place++) {
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
