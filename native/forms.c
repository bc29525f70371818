/* Codes in other forms: packed anew, or split for the entropy coder. */
#include "packing.h"

int32_t LOOP(repack)(
    const uint8_t *data, int64_t data_bytes, int64_t width, int64_t new_width, int64_t size,
    uint8_t *out, int64_t out_bytes)
{
    Block block;
    const int64_t bits = least(width, new_width);

    if (!are_possible(bits, width) || !are_possible(bits, new_width)
        || !holds(data_bytes, size, width) || !holds(out_bytes, size, new_width)) {
        return BAD_ARGUMENT;
    }
    for (int64_t start = 0; start < size; start += DECODE_BLOCK) {
        const int64_t count = least(DECODE_BLOCK, size - start);
        const int64_t from_bytes = packed_bytes(count, width);
        const int64_t to_bytes = packed_bytes(count, new_width);
        const uint8_t *from = data + start * width / 8;
        uint8_t *to = out + start * new_width / 8;

        if (width <= NARROW && new_width <= NARROW) {
            unpack_bytes(from, from_bytes, (uint64_t)bits, (uint64_t)width, block.words);
            clear(block.narrow + count, count, 1);
            pack_bytes(block.words, to_bytes, (uint64_t)new_width, to);
        } else {
            if (width <= NARROW) {
                uint64_t words[DECODE_BLOCK / 8];
                const uint8_t *narrow = (const uint8_t *)words;
                unpack_bytes(from, from_bytes, (uint64_t)bits, (uint64_t)width, words);
                for (int64_t i = 0; i < count; i++) {
                    block.wide[i] = narrow[i];
                }
            } else {
                unpack_wide(from, from_bytes, (uint64_t)bits, (uint64_t)width, block.words);
            }
            clear(block.wide + count, count, sizeof(uint16_t));
            if (new_width <= NARROW) {
                uint64_t words[DECODE_BLOCK / 8];
                uint8_t *narrow = (uint8_t *)words;
                for (int64_t i = 0; i < count; i++) {
                    narrow[i] = (uint8_t)block.wide[i];
                }
                clear(narrow + count, count, 1);
                pack_bytes(words, to_bytes, (uint64_t)new_width, to);
            } else {
                pack_wide(block.words, to_bytes, (uint64_t)new_width, to);
            }
        }
    }
    return DONE;
}

int32_t LOOP(split_wide)(
    const uint16_t *codes, int64_t size, int64_t bits, uint8_t *high, uint8_t *low,
    int64_t low_bytes)
{
    Block block;
    const int64_t width = bits - NARROW;

    if (width < 1 || bits > WIDEST || !holds(low_bytes, size, width)) {
        return BAD_ARGUMENT;
    }
    for (int64_t start = 0; start < size; start += DECODE_BLOCK) {
        const int64_t count = least(DECODE_BLOCK, size - start);
        const uint16_t rest = (uint16_t)((1u << width) - 1);

        for (int64_t i = 0; i < count; i++) {
            high[start + i] = (uint8_t)(codes[start + i] >> width);
            block.narrow[i] = (uint8_t)(codes[start + i] & rest);
        }
        clear(block.narrow + count, count, 1);
        pack_bytes(
            block.words, packed_bytes(count, width), (uint64_t)width, low + start * width / 8);
    }
    return DONE;
}

int32_t LOOP(join_wide)(
    const uint8_t *high, const uint8_t *low, int64_t low_bytes, int64_t bits, uint16_t *codes,
    int64_t size)
{
    Block block;
    const int64_t width = bits - NARROW;

    if (width < 1 || bits > WIDEST || !holds(low_bytes, size, width)) {
        return BAD_ARGUMENT;
    }
    for (int64_t start = 0; start < size; start += DECODE_BLOCK) {
        const int64_t count = least(DECODE_BLOCK, size - start);
        const uint8_t *rest = narrow_codes(low, start, count, width, width, &block);

        for (int64_t i = 0; i < count; i++) {
            codes[start + i] = (uint16_t)((uint32_t)high[start + i] << width | rest[i]);
        }
    }
    return DONE;
}
