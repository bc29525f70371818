/* From values to codes. */
#include "dither.h"
#include "packing.h"

typedef struct {
    float lo, inverse_step, unit, top;
    uint32_t fraction, above, below, shift, counter, key1;
    int at_random;
} Rounding;

/* Return the code of value i of a block. */
SPECIAL uint32_t code_of(float value, uint32_t i, Rounding how)
{
    const uint32_t dither = how.at_random
        ? mixed((how.counter + i * WEYL) ^ how.key1) & how.fraction
        : value < 0.0f ? how.below : how.above;
    float scaled = (value - how.lo) * how.inverse_step * how.unit;
    scaled = scaled > 0.0f ? scaled : 0.0f;
    scaled = scaled < how.top ? scaled : how.top;
    return ((uint32_t)(int32_t)scaled + dither) >> how.shift;
}

#ifdef VECTOR
/* What `code_of` computes, for several values. The two factors are one here: see `quantize_block`.
 * The state is the counters. */
SPECIAL Words codes_of(const float *values, Words *counters, float factor, Rounding how)
{
    Floats scaled;
    Words dither;
    memcpy(&scaled, values, sizeof scaled);
    if (!how.at_random) {
        const Words is_below = (Words)(scaled < 0.0f);
        dither = (is_below & how.below) | (~is_below & how.above);
    }
    scaled = (scaled - how.lo) * factor;
    scaled = smaller(greater(scaled, (Floats){0}), how.top - (Floats){0});
    if (how.at_random) {
        dither = all_mixed(*counters ^ how.key1) & how.fraction;
        *counters += AT_ONCE * WEYL;
    }
    return ((Words)__builtin_convertvector(scaled, Integers) + dither) >> how.shift;
}
#endif

/* Write the codes of a block to bytes or to 16-bit words; the other pointer is null. */
SPECIAL void quantize_block(
    const float *values, int64_t count, Rounding how, uint8_t *narrow, uint16_t *wide)
{
    int64_t i = 0;

#ifdef VECTOR
    /* `unit` is a power of two, so it matters not when it is multiplied with, unless numbers leave
     * the range of binary32: a product below the range is cut to 0 either way, one above it to
     * `top`, and a factor above it is not used. */
    const float factor = how.inverse_step * how.unit;
    if (factor <= 0x1p127f) {
        Words counters;
        for (int lane = 0; lane < AT_ONCE; lane++) {
            counters[lane] = how.counter + (uint32_t)lane * WEYL;
        }
        if (narrow) {
            for (; i + 4 * AT_ONCE <= count; i += 4 * AT_ONCE) {
                const Words a = codes_of(values + i, &counters, factor, how);
                const Words b = codes_of(values + i + AT_ONCE, &counters, factor, how);
                const Words c = codes_of(values + i + 2 * AT_ONCE, &counters, factor, how);
                const Words d = codes_of(values + i + 3 * AT_ONCE, &counters, factor, how);
                store_bytes(narrow + i, a, b, c, d);
            }
        } else {
            for (; i + 2 * AT_ONCE <= count; i += 2 * AT_ONCE) {
                const Words a = codes_of(values + i, &counters, factor, how);
                const Words b = codes_of(values + i + AT_ONCE, &counters, factor, how);
                store_wide(wide + i, a, b);
            }
        }
    }
#endif
    if (narrow) {
        for (; i < count; i++) {
            narrow[i] = (uint8_t)code_of(values[i], (uint32_t)i, how);
        }
    } else {
        for (; i < count; i++) {
            wide[i] = (uint16_t)code_of(values[i], (uint32_t)i, how);
        }
    }
}

int32_t LOOP(quantize)(
    const float *values, int64_t size, uint32_t first, float lo, float inverse_step, int64_t bits,
    int64_t width, int64_t threshold, uint32_t key0, uint32_t key1, uint8_t *out, int64_t out_bytes)
{
    Block block;

    if (!are_possible(bits, width) || !holds(out_bytes, size, width) || threshold < 0
        || threshold > 255) {
        return BAD_ARGUMENT;
    }
    const uint32_t shift = (uint32_t)(31 - bits);
    const float unit = (float)((uint32_t)1 << shift);
    Rounding how = {
        .lo = lo, .inverse_step = inverse_step, .unit = unit,
        .top = (float)(((uint32_t)1 << bits) - 1) * unit,
        .fraction = ((uint32_t)1 << shift) - 1, .shift = shift, .key1 = key1,
        /* In 256ths of a step, of which a code of 16 bits leaves 2^15 to the position. */
        .above = (uint32_t)(256 - threshold) << (shift - 8),
        .below = (uint32_t)threshold << (shift - 8),
    };
    for (int64_t start = 0; start < size; start += QUANTIZE_BLOCK) {
        const int64_t count = least(QUANTIZE_BLOCK, size - start);
        const float *part = values + start;
        uint8_t *to = out + start * width / 8;

        how.counter = (first + (uint32_t)start) * WEYL + key0;
        /* `quantize_block` is compiled for each of its calls: without the hash where that is idle. */
        if (width <= NARROW) {
            uint8_t *codes = width == NARROW ? to : block.narrow;
            if (threshold) {
                how.at_random = 0;
                quantize_block(part, count, how, codes, NULL);
            } else {
                how.at_random = 1;
                quantize_block(part, count, how, codes, NULL);
            }
            if (width < NARROW) {
                clear(block.narrow + count, count, 1);
                pack_bytes(block.words, packed_bytes(count, width), (uint64_t)width, to);
            }
        } else {
            if (threshold) {
                how.at_random = 0;
                quantize_block(part, count, how, NULL, block.wide);
            } else {
                how.at_random = 1;
                quantize_block(part, count, how, NULL, block.wide);
            }
            clear(block.wide + count, count, sizeof(uint16_t));
            pack_wide(block.words, packed_bytes(count, width), (uint64_t)width, to);
        }
    }
    return DONE;
}
