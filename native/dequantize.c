/* From codes to values, and to what is added up of them. */
#include "packing.h"

/* Return the value of a code; the product is exact. */
static inline float value_of(uint32_t code, double lo, double step)
{
    return (float)(lo + step * (double)(int32_t)code);
}

#ifdef TAKES_APART
/* Write or add the values of whole groups; return how many values that were. */
SPECIAL int64_t dequantize_groups(
    const uint8_t *data, int64_t bytes, int64_t bits, int64_t width, double lo, double step,
    int add, int one_word, float *out, int64_t size)
{
    const Apart how = apart(bits, width, one_word);
    const int64_t groups = groups_within(bytes, size, how);
    /* 2^52 as a double: with a small integer in its lowest bits it is 2^52 and that integer. */
    const Lanes large = all_lanes(0x4330000000000000u);

    for (int64_t group = 0; group < groups; group++) {
        for (int part = 0; part < GROUP / LONG_AT_ONCE; part++) {
            const Lanes codes = part_of_group(data + group * width, part, how);
            float *to = out + group * GROUP + part * LONG_AT_ONCE;
            const Doubles exact = (Doubles)(codes | large) - 0x1p52;
            HalfFloats values = __builtin_convertvector(lo + step * exact, HalfFloats);
            if (add) {
                HalfFloats before;
                memcpy(&before, to, sizeof before);
                values += before;
            }
            memcpy(to, &values, sizeof values);
        }
    }
    return groups * GROUP;
}
#endif

int32_t LOOP(dequantize)(
    const uint8_t *data, int64_t data_bytes, int64_t bits, int64_t width, double lo, double step,
    int64_t add, float *out, int64_t size)
{
    Block block;
    float table[1 << NARROW];
    int64_t start = 0;

    if (!are_possible(bits, width) || !holds(data_bytes, size, width)) {
        return BAD_ARGUMENT;
    }
#ifdef TAKES_APART
    if (add) {
        start = width <= NARROW
            ? dequantize_groups(data, data_bytes, bits, width, lo, step, 1, 1, out, size)
            : dequantize_groups(data, data_bytes, bits, width, lo, step, 1, 0, out, size);
    } else {
        start = width <= NARROW
            ? dequantize_groups(data, data_bytes, bits, width, lo, step, 0, 1, out, size)
            : dequantize_groups(data, data_bytes, bits, width, lo, step, 0, 0, out, size);
    }
#endif
    if (width <= NARROW && start < size) {
        for (uint32_t code = 0; code < (uint32_t)1 << bits; code++) {
            table[code] = value_of(code, lo, step);
        }
    }
    for (; start < size; start += DECODE_BLOCK) {
        const int64_t count = least(DECODE_BLOCK, size - start);
        float *to = out + start;

        if (width <= NARROW) {
            const uint8_t *codes = narrow_codes(data, start, count, bits, width, &block);
            for (int64_t i = 0; i < count; i++) {
                to[i] = add ? to[i] + table[codes[i]] : table[codes[i]];
            }
        } else {
            const uint16_t *codes = wide_codes(data, start, count, bits, width, &block);
            for (int64_t i = 0; i < count; i++) {
                const float value = value_of(codes[i], lo, step);
                to[i] = add ? to[i] + value : value;
            }
        }
    }
    return DONE;
}

/* Constants of a term, origin + round(slope * code / 2^shift), in numbers that wrap around. */
typedef struct {
    uint64_t origin, slope, half;
    int shift;
} Term;

static inline uint64_t term(uint32_t code, Term of)
{
    return of.origin + (uint64_t)((int64_t)(of.slope * code + of.half) >> of.shift);
}

#ifdef TAKES_APART
/* Groups by which the sums are fetched ahead: 8 KiB. The processor's own guess comes late. */
enum { AHEAD = 128 };

/* Add the terms of whole groups; return how many that were. */
SPECIAL int64_t accumulate_groups(
    const uint8_t *data, int64_t bytes, int64_t bits, int64_t width, Term of, int one_word,
    int64_t *total, int64_t size)
{
    const Apart how = apart(bits, width, one_word);
    const int64_t groups = groups_within(bytes, size, how);
    const uint64_t sign = (uint64_t)1 << 63;
    const Lanes low = all_lanes(of.slope & 0xFFFFFFFFu), high = all_lanes(of.slope >> 32);
    /* No shift keeps the sign of 64 bits, so numbers are made positive before, and back after. */
    const Lanes before = all_lanes(of.half + sign);
    const Lanes after = all_lanes(of.origin - (sign >> of.shift));
    const Lanes shift = all_lanes((uint64_t)of.shift);

    for (int64_t group = 0; group < groups; group++) {
        __builtin_prefetch(total + (group + AHEAD) * GROUP, 1);
        for (int part = 0; part < GROUP / LONG_AT_ONCE; part++) {
            const Lanes codes = part_of_group(data + group * width, part, how);
            int64_t *to = total + group * GROUP + part * LONG_AT_ONCE;
            Lanes sum;
            memcpy(&sum, to, sizeof sum);
            sum += ((product(codes, low) + (product(codes, high) << 32) + before) >> shift) + after;
            memcpy(to, &sum, sizeof sum);
        }
    }
    return groups * GROUP;
}
#endif

int32_t LOOP(accumulate)(
    const uint8_t *data, int64_t data_bytes, int64_t bits, int64_t width, int64_t origin,
    int64_t slope, int64_t shift, int64_t sign, int64_t *total, int64_t size)
{
    Block block;
    uint64_t table[1 << NARROW];
    int64_t start = 0;

    if (!are_possible(bits, width) || !holds(data_bytes, size, width) || shift < 0 || shift > 62) {
        return BAD_ARGUMENT;
    }
    Term of = {(uint64_t)origin, (uint64_t)slope, ((uint64_t)1 << shift) >> 1, (int)shift};
    if (sign < 0) {
        /* The exact negative: -(x >> shift) is (~x >> shift) + 1. */
        of.origin = 1 - of.origin;
        of.slope = -of.slope;
        of.half = ~of.half;
    }
#ifdef TAKES_APART
    start = width <= NARROW
        ? accumulate_groups(data, data_bytes, bits, width, of, 1, total, size)
        : accumulate_groups(data, data_bytes, bits, width, of, 0, total, size);
#endif
    if (width <= NARROW && start < size) {
        for (uint32_t code = 0; code < (uint32_t)1 << bits; code++) {
            table[code] = term(code, of);
        }
    }
    for (; start < size; start += DECODE_BLOCK) {
        const int64_t count = least(DECODE_BLOCK, size - start);
        int64_t *to = total + start;

        if (width <= NARROW) {
            const uint8_t *codes = narrow_codes(data, start, count, bits, width, &block);
            for (int64_t i = 0; i < count; i++) {
                to[i] = (int64_t)((uint64_t)to[i] + table[codes[i]]);
            }
        } else {
            const uint16_t *codes = wide_codes(data, start, count, bits, width, &block);
            for (int64_t i = 0; i < count; i++) {
                to[i] = (int64_t)((uint64_t)to[i] + term(codes[i], of));
            }
        }
    }
    return DONE;
}

#ifdef TAKES_APART
/* Add the codes of whole groups and their squares to `sums`; return how many that were. */
SPECIAL int64_t sum_groups(
    const uint8_t *data, int64_t bytes, int64_t bits, int64_t width, int one_word, uint64_t *sums,
    int64_t size)
{
    const Apart how = apart(bits, width, one_word);
    const int64_t groups = groups_within(bytes, size, how);
    Lanes total = {0}, squares = {0};

    for (int64_t group = 0; group < groups; group++) {
        for (int part = 0; part < GROUP / LONG_AT_ONCE; part++) {
            const Lanes codes = part_of_group(data + group * width, part, how);
            total += codes;
            squares += product(codes, codes);
        }
    }
    for (int lane = 0; lane < LONG_AT_ONCE; lane++) {
        sums[0] += total[lane];
        sums[1] += squares[lane];
    }
    return groups * GROUP;
}
#endif

int32_t LOOP(code_sums)(
    const uint8_t *data, int64_t data_bytes, int64_t bits, int64_t width, int64_t size,
    int64_t *sums)
{
    Block block;
    uint64_t found[2] = {0, 0};
    int64_t start = 0;

    if (!are_possible(bits, width) || !holds(data_bytes, size, width)) {
        return BAD_ARGUMENT;
    }
#ifdef TAKES_APART
    start = width <= NARROW ? sum_groups(data, data_bytes, bits, width, 1, found, size)
                            : sum_groups(data, data_bytes, bits, width, 0, found, size);
#endif
    for (; start < size; start += DECODE_BLOCK) {
        const int64_t count = least(DECODE_BLOCK, size - start);

        if (width <= NARROW) {
            const uint8_t *codes = narrow_codes(data, start, count, bits, width, &block);
            uint32_t total = 0, squares = 0; /* those of a block fit 32 bits */
            for (int64_t i = 0; i < count; i++) {
                total += codes[i];
                squares += (uint32_t)codes[i] * codes[i];
            }
            found[0] += total;
            found[1] += squares;
        } else {
            const uint16_t *codes = wide_codes(data, start, count, bits, width, &block);
            for (int64_t i = 0; i < count; i++) {
                found[0] += codes[i];
                found[1] += (uint64_t)((uint32_t)codes[i] * (uint32_t)codes[i]);
            }
        }
    }
    memcpy(sums, found, sizeof found);
    return DONE;
}
