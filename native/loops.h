/* The inner loops of the codec: what runs once for every value of a model.
 *
 * docs/explanation/native.md says how a chunk is coded, and how to change a loop. `fedaq.codec.kernels` calls
 * these functions through ctypes, which lets go of Python's lock meanwhile. Nothing here knows
 * Python, allocates, keeps a state, or calls a mathematical library.
 *
 * The sources are compiled several times, for processors with more and more vector instructions,
 * and each function below exists once for each of these levels, under the name `LOOP(name)`:
 * `quantize_avx2` and so on. All levels give the same bytes. `loops_levels` says which there are.
 *
 * What holds for every function
 * - Values are IEEE 754 binary32 (`float`). Sums are 64-bit integers that wrap around.
 * - Pointers are aligned as C wants it for their type; bytes may lie anywhere. Buffers that are
 *   written to overlap no others, but for `out` in `add_scaled`, which may be `base`.
 * - `width` is how many bits lie between two packed codes: 1 to 16. `n` codes take
 *   ceil(n * width / 8) bytes, the first code in the lowest bits of the first byte. A slice of a
 *   tensor begins at a multiple of GROUP codes, so it begins at a whole byte.
 * - `bits` is how many bits a code has: 1 to `width`. What a peer put above them is ignored.
 * - Each buffer of bytes comes with its length. A function that would read or write beyond one, or
 *   is given a width or a number that cannot be, does nothing and returns `BAD_ARGUMENT`.
 *   Otherwise it returns `DONE`.
 */
#ifndef FEDAQ_LOOPS_H
#define FEDAQ_LOOPS_H

#include <stdint.h>

/* Counts changes of what functions there are and what they take; the caller compares it. */
#define LOOPS_VERSION 2

enum { DONE = 0, BAD_ARGUMENT = 1 };
enum { GROUP = 8, LANES = 16 };
/* Classes of `encode` and `decode`, and the bit of a class that turns the signs of its values. */
enum { CLASSES = 64, FOLD = 128 };

#ifdef _WIN32
#define EXPORTED __declspec(dllexport)
#else
#define EXPORTED __attribute__((visibility("default")))
#endif

/* Return LOOPS_VERSION. */
EXPORTED int32_t loops_version(void);

/* Return the names of the levels that were compiled and that this processor can run, the fastest
 * first, with a space between two. The last one runs on every processor of its kind. */
EXPORTED const char *loops_levels(void);

#ifdef LEVEL
#define JOINED(name, level) name##_##level
#define EXPANDED(name, level) JOINED(name, level)
#define LOOP(name) EXPANDED(name, LEVEL)

/* Write the least and the greatest value to `ends[2]`; if any value is NaN or infinite, so is one
 * of the two. Write the sums of the values, of their squares and of their magnitudes to `sums[3]`,
 * formed in binary64: value i goes to lane i % LANES, then lanes are added in their order.
 * `size` is at least 1. */
EXPORTED int32_t LOOP(statistics)(
    const float *values, int64_t size, float *ends, double *sums);

/* Quantize: round each value to a code of `bits` bits, and pack the codes `width` apart.
 *
 * The position of a value is (value - lo) * inverse_step, cut to 0 .. 2^bits - 1. As a fixed-point
 * number it has 31 - bits fractional bits; a random integer of as many bits is added, and the whole
 * part is the code: unbiased, but for the binary32 arithmetic of the position. Random number i of a
 * tensor is a hash of the two words of the key and of i alone. With a `threshold`, a constant is
 * added instead: a value whose distance to the next code towards 0 is that many 256ths of a step
 * or more becomes the code beyond it. 128 is to the nearest.
 *
 * values, size     at most 2^40
 * first            index in the tensor of the first value, modulo 2^32
 * lo, inverse_step value of code 0, and one over the quantization step; 0 if all codes are to be 0
 * bits, width      1 <= bits <= width <= 16
 * threshold        0 (round at random) to 255
 * out, out_bytes   receives the codes */
EXPORTED int32_t LOOP(quantize)(
    const float *values, int64_t size, uint32_t first, float lo, float inverse_step, int64_t bits,
    int64_t width, int64_t threshold, uint32_t key0, uint32_t key1, uint8_t *out, int64_t out_bytes);

/* Write the value of each code, (float)(lo + step * code), to `out[size]`, or with `add` add it to
 * what is there. `lo` is exact in binary64 and `step` a binary32 value, so the product is exact. */
EXPORTED int32_t LOOP(dequantize)(
    const uint8_t *data, int64_t data_bytes, int64_t bits, int64_t width, double lo, double step,
    int64_t add, float *out, int64_t size);

/* Add sign * (origin + round(slope * code / 2^shift)) to `total[size]`; halves are rounded up.
 * `shift` is 0 to 62, `sign` 1 or -1, and slope * code stays below 2^62. */
EXPORTED int32_t LOOP(accumulate)(
    const uint8_t *data, int64_t data_bytes, int64_t bits, int64_t width, int64_t origin,
    int64_t slope, int64_t shift, int64_t sign, int64_t *total, int64_t size);

/* Write the sum of the codes and that of their squares to `sums[2]`; exact below 2^31 codes. */
EXPORTED int32_t LOOP(code_sums)(
    const uint8_t *data, int64_t data_bytes, int64_t bits, int64_t width, int64_t size,
    int64_t *sums);

/* Pack codes that lie `width` apart anew, `new_width` apart; of each, the lowest bits that both
 * have room for. */
EXPORTED int32_t LOOP(repack)(
    const uint8_t *data, int64_t data_bytes, int64_t width, int64_t new_width, int64_t size,
    uint8_t *out, int64_t out_bytes);

/* Split codes of 16 bits, of which the lowest `bits` count (9 to 16): the highest 8 of those go to
 * `high[size]`, the others, packed bits - 8 apart, to `low`. */
EXPORTED int32_t LOOP(split_wide)(
    const uint16_t *codes, int64_t size, int64_t bits, uint8_t *high, uint8_t *low,
    int64_t low_bytes);

/* Put such codes together again. */
EXPORTED int32_t LOOP(join_wide)(
    const uint8_t *high, const uint8_t *low, int64_t low_bytes, int64_t bits, uint16_t *codes,
    int64_t size);

/* Add sign * rint(value * factor) to `total[size]`. Values are finite, products below 2^62. */
EXPORTED int32_t LOOP(accumulate_raw)(
    const float *values, double factor, int64_t sign, int64_t *total, int64_t size);

/* Write base + (float)(total * scale) to `out[size]`. */
EXPORTED int32_t LOOP(add_scaled)(
    const float *base, const int64_t *total, double scale, float *out, int64_t size);

/* Add how often each byte occurs, every `stride`-th of `size` of them, to `counts[256]`. */
EXPORTED int32_t LOOP(histogram)(
    const uint8_t *symbols, int64_t size, int64_t stride, int64_t *counts);

/* Split bytes in two streams: is it another one than `mode` (one bit a byte, lowest first, and one
 * more 1 after the last), and if so which.
 *
 * flags    size / 8 + 1 bytes
 * others   size + 1 bytes: the others, and rubbish after them
 * found    their number */
EXPORTED int32_t LOOP(split_mode)(
    const uint8_t *symbols, int64_t size, uint8_t mode, uint8_t *flags, uint8_t *others,
    int64_t *found);

/* Write how many of the first `size` flags are 1 to `*found`; BAD_ARGUMENT if they are not
 * size / 8 + 1 bytes that end with the 1 that `split_mode` sets. */
EXPORTED int32_t LOOP(count_flags)(
    const uint8_t *flags, int64_t flag_bytes, int64_t size, int64_t *found);

/* Put the bytes together again. There are `count` others, as `count_flags` says, and one byte more
 * that is read but not used. */
EXPORTED int32_t LOOP(merge_mode)(
    const uint8_t *flags, int64_t flag_bytes, uint8_t mode, const uint8_t *others, int64_t count,
    uint8_t *out, int64_t size);

/* Write a class for each value of a tensor from the number that rounded it at random (`quantize`), U
 * as a share of a step: with t = min(U, 1 - U), class 0 holds the greatest half octave of t, class 18
 * the least ones; FOLD is added where U < 1/2. `bits` are those of the codes. */
EXPORTED int32_t LOOP(dither_classes)(
    uint32_t first, int64_t bits, uint32_t key0, uint32_t key1, uint8_t *classes, int64_t size);

/* Write a class for each value of a tensor from what the last two differences had for it
 * (`remember`): what is likelier to be 0 now has a lower class. FOLD is added where the last one that
 * was not 0 was below 0. */
EXPORTED int32_t LOOP(past_classes)(const uint8_t *past, int64_t size, uint8_t *classes);

/* Note the codes of a difference, of which `zero` stands for 0, in `past[size]`: a + 5 b, with a for
 * the last one (0, 1: one step up, 2: more, 3: one down, 4: more) and b for the one before it
 * (0, 1: up, 2: down). Without codes, `bits` being 0, all are 0. */
EXPORTED int32_t LOOP(remember)(
    const uint8_t *data, int64_t data_bytes, int64_t bits, int64_t width, int64_t zero,
    uint8_t *past, int64_t size);

/* Write codes with a range coder whose odds are learned for each class, 0 to CLASSES - 1.
 *
 * codes          one a byte
 * zero           the code that stands for 0
 * out, out_bytes receives what they take, if there is room
 * written        its length, or -1 if there is no room */
EXPORTED int32_t LOOP(encode_given)(
    const uint8_t *codes, const uint8_t *classes, int64_t size, int64_t zero, uint8_t *out,
    int64_t out_bytes, int64_t *written);

/* Read codes of `bits` bits, 1 to 8, back; BAD_ARGUMENT if `data` is not what any are written to. */
EXPORTED int32_t LOOP(decode_given)(
    const uint8_t *data, int64_t data_bytes, const uint8_t *classes, int64_t zero, int64_t bits,
    uint8_t *codes, int64_t size);

#endif
#endif
