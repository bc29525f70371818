/* Decodes the code bytes of one tensor, as docs/reference/wire-format.md describes. C99, no libraries.
 *
 *   cc -std=c99 -O2 -o decode docs/reference/decode.c
 *   decode BITS LO HI VALUES < code-bytes
 *
 * BITS is 1 to 16, or 32 for raw; LO and HI are binary32 bit patterns in hex (0 0 for raw).
 * Prints the bit pattern of each value on a line of its own.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static float float_of(uint32_t pattern)
{
    float value;
    memcpy(&value, &pattern, sizeof value);
    return value;
}

/* Field `index` of `bits` bits in a stream whose first bit is the lowest of byte 0. */
static uint32_t field(const uint8_t *bytes, unsigned bits, uint64_t index)
{
    uint32_t code = 0;
    for (unsigned k = 0; k < bits; k++) {
        uint64_t bit = index * bits + k;
        code |= (uint32_t)(bytes[bit / 8] >> (bit % 8) & 1) << k;
    }
    return code;
}

static float quantization_step(float lo, float hi, unsigned bits)
{
    return (float)(((double)hi - (double)lo) / (double)((1u << bits) - 1));
}

static float value_of(uint32_t code, float lo, float step)
{
    return (float)((double)lo + (double)step * (double)code);
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return fprintf(stderr, "usage: decode BITS LO HI VALUES < code-bytes\n"), 2;
    unsigned bits = (unsigned)strtoul(argv[1], NULL, 10);
    float lo = float_of((uint32_t)strtoul(argv[2], NULL, 16));
    float hi = float_of((uint32_t)strtoul(argv[3], NULL, 16));
    uint64_t values = strtoull(argv[4], NULL, 10);
    if (!((bits >= 1 && bits <= 16) || bits == 32) || values >= (uint64_t)1 << 32)
        return fprintf(stderr, "decode: 1 to 16 bits or 32, fewer than 2^32 values\n"), 2;

    uint64_t length = (values * bits + 7) / 8;
    uint8_t *bytes = malloc(length ? length : 1);
    if (bytes == NULL || fread(bytes, 1, length, stdin) != length)
        return fprintf(stderr, "decode: %" PRIu64 " bytes are needed\n", length), 1;

    float step = bits == 32 ? 0 : quantization_step(lo, hi, bits);
    for (uint64_t i = 0; i < values; i++) {
        uint32_t code = field(bytes, bits, i);
        float value = bits == 32 ? float_of(code) : value_of(code, lo, step);
        uint32_t pattern;
        memcpy(&pattern, &value, sizeof pattern);
        printf("%08" PRIx32 "\n", pattern);
    }
    free(bytes);
    return 0;
}
