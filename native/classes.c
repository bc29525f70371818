/* Classes of values by what both ends know of them before their codes come: the number that rounded
 * each at random, or what the last differences had for it. */
#include "dither.h"
#include "packing.h"

/* t is held to 24 bits; half octaves below that of 2^-9 are one. */
enum { LEAST_HALF_OCTAVE = 18 };

SPECIAL uint8_t class_of(uint32_t random, uint32_t shift)
{
    const uint32_t u = random << shift;
    const uint32_t fold = u >> 31 ? 0 : FOLD;
    const float t = (float)(int32_t)((fold ? u : ~u) >> 7);
    uint32_t as_bits;
    memcpy(&as_bits, &t, sizeof as_bits);
    /* The exponent and the first bit behind the point; 301 are those of the greatest t. */
    const uint32_t found = 301 - (as_bits >> 22);
    return (uint8_t)((found < LEAST_HALF_OCTAVE ? found : LEAST_HALF_OCTAVE) | fold);
}

#ifdef VECTOR
SPECIAL Words classes_of(Words *counters, uint32_t key1, uint32_t shift)
{
    const Words u = all_mixed(*counters ^ key1) << shift;
    /* All ones where u is in the lower half. */
    const Words low = (Words)((Integers)u >= 0);
    const Integers t = (Integers)((u ^ ~low) >> 7);
    const Words as_bits = (Words)__builtin_convertvector(t, Floats);
    const Integers found = (Integers)(301 - (as_bits >> 22));
    *counters += AT_ONCE * WEYL;
    return (Words)lowest(found, LEAST_HALF_OCTAVE - (Integers){0}) | (low & FOLD);
}
#endif

int32_t LOOP(dither_classes)(
    uint32_t first, int64_t bits, uint32_t key0, uint32_t key1, uint8_t *classes, int64_t size)
{
    int64_t i = 0;

    if (size < 0 || size > MOST_CODES || bits < 1 || bits > WIDEST) {
        return BAD_ARGUMENT;
    }
    const uint32_t shift = (uint32_t)bits + 1;
    const uint32_t counter = first * WEYL + key0;
#ifdef VECTOR
    Words counters;
    for (int lane = 0; lane < AT_ONCE; lane++) {
        counters[lane] = counter + (uint32_t)lane * WEYL;
    }
    for (; i + 4 * AT_ONCE <= size; i += 4 * AT_ONCE) {
        const Words a = classes_of(&counters, key1, shift);
        const Words b = classes_of(&counters, key1, shift);
        const Words c = classes_of(&counters, key1, shift);
        const Words d = classes_of(&counters, key1, shift);
        store_bytes(classes + i, a, b, c, d);
    }
#endif
    for (; i < size; i++) {
        classes[i] = class_of(mixed((counter + (uint32_t)i * WEYL) ^ key1), shift);
    }
    return DONE;
}

int32_t LOOP(past_classes)(const uint8_t *past, int64_t size, uint8_t *classes)
{
    /* By a + 5 b. The first number is 16 times how far off 0 the last one was. */
    static const uint8_t CLASS[16] = {
        0, 16, 32, 16 | FOLD, 32 | FOLD, /* nothing before it */
        1, 17, 33, 18 | FOLD, 34 | FOLD, /* one up before it */
        1 | FOLD, 18, 34, 17 | FOLD, 33 | FOLD, 0,
    };
    if (size < 0) {
        return BAD_ARGUMENT;
    }
    for (int64_t i = 0; i < size; i++) {
        classes[i] = CLASS[past[i] & 15];
    }
    return DONE;
}

/* By what the past was: what it is for the next code if that is 0. */
static const uint8_t SHIFTED[16] = {0, 5, 5, 10, 10, 0, 5, 5, 10, 10, 0, 5, 5, 10, 10, 0};

static inline uint8_t place_of(int32_t value)
{
    return (uint8_t)(value > 0 ? (value > 1 ? 2 : 1) : value < 0 ? (value < -1 ? 4 : 3) : 0);
}

int32_t LOOP(remember)(
    const uint8_t *data, int64_t data_bytes, int64_t bits, int64_t width, int64_t zero,
    uint8_t *past, int64_t size)
{
    Block block;

    if (size < 0 || zero < 0 || zero >> WIDEST != 0) {
        return BAD_ARGUMENT;
    }
    if (bits == 0) {
        for (int64_t i = 0; i < size; i++) {
            past[i] = SHIFTED[past[i] & 15];
        }
        return DONE;
    }
    if (!are_possible(bits, width) || !holds(data_bytes, size, width)) {
        return BAD_ARGUMENT;
    }
    for (int64_t start = 0; start < size; start += DECODE_BLOCK) {
        const int64_t count = least(DECODE_BLOCK, size - start);
        uint8_t *to = past + start;

        if (width <= NARROW) {
            const uint8_t *codes = narrow_codes(data, start, count, bits, width, &block);
            for (int64_t i = 0; i < count; i++) {
                to[i] = (uint8_t)(SHIFTED[to[i] & 15] + place_of(codes[i] - (int32_t)zero));
            }
        } else {
            const uint16_t *codes = wide_codes(data, start, count, bits, width, &block);
            for (int64_t i = 0; i < count; i++) {
                to[i] = (uint8_t)(SHIFTED[to[i] & 15] + place_of(codes[i] - (int32_t)zero));
            }
        }
    }
    return DONE;
}
