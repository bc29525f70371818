/* How a chunk is coded
 *
 * A value becomes a code: an integer of 1 to 16 bits that counts quantization steps (`quantize`).
 * Codes of up to 8 bits pass through memory as bytes, wider ones as 16-bit words, in blocks that
 * stay in the nearest cache. From there they are packed without gaps, eight codes to a group, or as
 * wide as the entropy coder wants them (`fedaq.codec.chunks`). To decode, codes are unpacked into
 * such a block again, and what is asked of them is computed: values, terms of a sum, or their sum.
 *
 * Packing closes up the eight codes of a group inside 64-bit words, in pairs, then pairs of pairs:
 *
 *     -----aaa -----bbb -----ccc -----ddd ...     codes of 3 bits in bytes
 *     ----------aaabbb  ----------cccddd  ...     after one step
 *
 * A step is the same for every group, so compilers make vector instructions of it, for whichever
 * processor. Words are read and written whole, eight bytes at every `width` bytes, and what they
 * reach too far the next one mends; the last ones of a buffer are copied by the byte.
 *
 * Why the bytes are the same everywhere
 *
 * Codes come from single binary32 operations (subtract, multiply, compare, convert) and from
 * integers. Where a product is added to something, the product is exact, so that fusing the two
 * would change nothing; the compiler is told not to fuse all the same (-ffp-contract=off). Sums of
 * floats are formed in a fixed order. Words are little-endian in memory, as the format is.
 *
 * To change a loop: edit this file, then `make native`. The tests compare every level with each
 * other, with the digest on file and with an oracle in Python (tests/common/test_kernels.py).
 */
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

/* ---- Vectors, where the compiler alone makes too little of them ------------------------------- */

/* Vectors are written in the notation that gcc and clang share. Intrinsics say what it cannot: how
 * codes are narrowed and closed up, which of two floats is the greater, and that 32 bits times 32
 * bits make 64. `VECTOR` is the size of a vector in bytes. Without it all is done by the plain
 * loops, which also do what is left over at the end of a buffer. */
#if defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define VECTOR 64
#elif defined(__AVX2__)
#define VECTOR 32
#elif defined(__SSE2__) || defined(__aarch64__)
#define VECTOR 16
#endif

#ifdef VECTOR
typedef uint32_t Words __attribute__((vector_size(VECTOR)));
typedef int32_t Integers __attribute__((vector_size(VECTOR)));
typedef float Floats __attribute__((vector_size(VECTOR)));
typedef float HalfFloats __attribute__((vector_size(VECTOR / 2)));
typedef uint64_t Lanes __attribute__((vector_size(VECTOR)));
typedef int64_t SignedLanes __attribute__((vector_size(VECTOR)));
typedef double Doubles __attribute__((vector_size(VECTOR)));
/* Values in a vector, of 32 bits and of 64. */
enum { AT_ONCE = VECTOR / 4, LONG_AT_ONCE = VECTOR / 8 };

/* What follows is written once for each kind of vectors:
 * - `greater(a, b)` is a > b ? a : b, so b where one is no number; `smaller` likewise;
 * - `lowest` and `highest` of integers;
 * - `store_wide` writes two vectors of numbers below 2^16 in 16 bits each,
 *   `store_bytes` four of numbers below 2^8 in 8 bits each;
 * - `moved` moves bytes inside each 16; a place above 15 gives 0 (MOVES_BYTES says if it exists). */
#if VECTOR == 64
#include <immintrin.h>
#define MOVES_BYTES
#define greater(a, b) ((Floats)_mm512_max_ps((__m512)(a), (__m512)(b)))
#define smaller(a, b) ((Floats)_mm512_min_ps((__m512)(a), (__m512)(b)))
#define lowest(a, b) ((Integers)_mm512_min_epi32((__m512i)(a), (__m512i)(b)))
#define highest(a, b) ((Integers)_mm512_max_epi32((__m512i)(a), (__m512i)(b)))
static inline void store_wide(uint16_t *to, Words a, Words b)
{
    const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    const __m512i both = _mm512_packus_epi32((__m512i)a, (__m512i)b);
    _mm512_storeu_si512(to, _mm512_permutexvar_epi64(order, both));
}
static inline void store_bytes(uint8_t *to, Words a, Words b, Words c, Words d)
{
    const __m512i order =
        _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i low = _mm512_packus_epi32((__m512i)a, (__m512i)b);
    const __m512i high = _mm512_packus_epi32((__m512i)c, (__m512i)d);
    const __m512i all = _mm512_packus_epi16(low, high);
    _mm512_storeu_si512(to, _mm512_permutexvar_epi32(order, all));
}
static inline Lanes moved(Lanes bytes, const uint8_t *places)
{
    const __m128i once = _mm_loadu_si128((const __m128i *)places);
    return (Lanes)_mm512_shuffle_epi8((__m512i)bytes, _mm512_broadcast_i32x4(once));
}
#elif VECTOR == 32
#include <immintrin.h>
#define MOVES_BYTES
#define greater(a, b) ((Floats)_mm256_max_ps((__m256)(a), (__m256)(b)))
#define smaller(a, b) ((Floats)_mm256_min_ps((__m256)(a), (__m256)(b)))
#define lowest(a, b) ((Integers)_mm256_min_epi32((__m256i)(a), (__m256i)(b)))
#define highest(a, b) ((Integers)_mm256_max_epi32((__m256i)(a), (__m256i)(b)))
static inline void store_wide(uint16_t *to, Words a, Words b)
{
    const __m256i both = _mm256_packus_epi32((__m256i)a, (__m256i)b);
    _mm256_storeu_si256((__m256i *)to, _mm256_permute4x64_epi64(both, 0xD8));
}
static inline void store_bytes(uint8_t *to, Words a, Words b, Words c, Words d)
{
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const __m256i low = _mm256_packus_epi32((__m256i)a, (__m256i)b);
    const __m256i high = _mm256_packus_epi32((__m256i)c, (__m256i)d);
    const __m256i all = _mm256_packus_epi16(low, high);
    _mm256_storeu_si256((__m256i *)to, _mm256_permutevar8x32_epi32(all, order));
}
static inline Lanes moved(Lanes bytes, const uint8_t *places)
{
    const __m128i once = _mm_loadu_si128((const __m128i *)places);
    return (Lanes)_mm256_shuffle_epi8((__m256i)bytes, _mm256_broadcastsi128_si256(once));
}
#elif defined(__SSE2__)
#define greater(a, b) ((Floats)_mm_max_ps((__m128)(a), (__m128)(b)))
#define smaller(a, b) ((Floats)_mm_min_ps((__m128)(a), (__m128)(b)))
#ifdef __SSE4_1__
#include <smmintrin.h>
#define MOVES_BYTES
#define lowest(a, b) ((Integers)_mm_min_epi32((__m128i)(a), (__m128i)(b)))
#define highest(a, b) ((Integers)_mm_max_epi32((__m128i)(a), (__m128i)(b)))
static inline __m128i narrowed(Words a, Words b)
{
    return _mm_packus_epi32((__m128i)a, (__m128i)b);
}
static inline Lanes moved(Lanes bytes, const uint8_t *places)
{
    return (Lanes)_mm_shuffle_epi8((__m128i)bytes, _mm_loadu_si128((const __m128i *)places));
}
#else
#include <emmintrin.h>
static inline Integers lowest(Integers a, Integers b)
{
    return (a & (a < b)) | (b & ~(a < b));
}
static inline Integers highest(Integers a, Integers b)
{
    return (a & (a > b)) | (b & ~(a > b));
}
static inline __m128i narrowed(Words a, Words b)
{
    /* As signed numbers they pass through the one instruction that there is. */
    return _mm_packs_epi32((__m128i)((Integers)(a << 16) >> 16), (__m128i)((Integers)(b << 16) >> 16));
}
#endif
static inline void store_wide(uint16_t *to, Words a, Words b)
{
    _mm_storeu_si128((__m128i *)to, narrowed(a, b));
}
static inline void store_bytes(uint8_t *to, Words a, Words b, Words c, Words d)
{
    _mm_storeu_si128((__m128i *)to, _mm_packus_epi16(narrowed(a, b), narrowed(c, d)));
}
#else
#include <arm_neon.h>
#define MOVES_BYTES
static inline Floats greater(Floats a, Floats b)
{
    const uint32x4_t is_greater = vcgtq_f32((float32x4_t)a, (float32x4_t)b);
    return (Floats)vbslq_f32(is_greater, (float32x4_t)a, (float32x4_t)b);
}
static inline Floats smaller(Floats a, Floats b)
{
    const uint32x4_t is_smaller = vcltq_f32((float32x4_t)a, (float32x4_t)b);
    return (Floats)vbslq_f32(is_smaller, (float32x4_t)a, (float32x4_t)b);
}
#define lowest(a, b) ((Integers)vminq_s32((int32x4_t)(a), (int32x4_t)(b)))
#define highest(a, b) ((Integers)vmaxq_s32((int32x4_t)(a), (int32x4_t)(b)))
static inline void store_wide(uint16_t *to, Words a, Words b)
{
    vst1q_u16(to, vuzp1q_u16((uint16x8_t)a, (uint16x8_t)b));
}
static inline void store_bytes(uint8_t *to, Words a, Words b, Words c, Words d)
{
    const uint16x8_t low = vuzp1q_u16((uint16x8_t)a, (uint16x8_t)b);
    const uint16x8_t high = vuzp1q_u16((uint16x8_t)c, (uint16x8_t)d);
    vst1q_u8(to, vuzp1q_u8((uint8x16_t)low, (uint8x16_t)high));
}
static inline Lanes moved(Lanes bytes, const uint8_t *places)
{
    return (Lanes)vqtbl1q_u8((uint8x16_t)bytes, vld1q_u8(places));
}
#endif
#endif

/* Where every lane can be shifted by another number, packed codes are taken apart in lanes of 64
 * bits, four or eight codes at once, without a block in between. */
#if defined(VECTOR) && VECTOR >= 32
#define TAKES_APART
/* Return the products of the low halves of the lanes. */
static inline Lanes product(Lanes a, Lanes b)
{
#if VECTOR == 64
    return (Lanes)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#else
    return (Lanes)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#endif
}

static inline Lanes all_lanes(uint64_t word)
{
    return word - (Lanes){0};
}

/* How the codes of a group are taken apart: the first four lie in the word at its first byte, the
 * others in the word that begins `second_at` bytes later. With `one_word`, the first holds all. */
typedef struct {
    Lanes first, second, mask;
    int64_t step, second_at;
    int one_word;
} Apart;

static inline Apart apart(int64_t bits, int64_t width, int one_word)
{
    const uint64_t one = (uint64_t)width, odd = 4 * one % 8;
    Apart found = {.mask = all_lanes(mask((uint64_t)bits, 64)), .step = width};
    found.second_at = 4 * width / 8;
    found.one_word = one_word;
    for (uint64_t lane = 0; lane < LONG_AT_ONCE; lane++) {
        found.first[lane] = lane < 4 || one_word ? one * lane : one * (lane - 4) + odd;
        found.second[lane] = one * lane + odd;
    }
    return found;
}

/* Return how many groups can be read by the word. */
static inline int64_t groups_within(int64_t bytes, int64_t size, Apart how)
{
    const int64_t room = bytes - how.second_at - 8;
    return room < 0 ? 0 : least(size / GROUP, room / how.step + 1);
}

/* Return half a group or a whole one; there are GROUP / LONG_AT_ONCE `part`s. */
SPECIAL Lanes part_of_group(const uint8_t *group, int part, Apart how)
{
#if VECTOR == 64
    if (how.one_word) {
        return all_lanes(load_word(group)) >> how.first & how.mask;
    }
    const __m256i low = _mm256_set1_epi64x((long long)load_word(group));
    const __m256i high = _mm256_set1_epi64x((long long)load_word(group + how.second_at));
    const Lanes both = (Lanes)_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    (void)part;
    return both >> how.first & how.mask;
#else
    if (part == 0) {
        return all_lanes(load_word(group)) >> how.first & how.mask;
    }
    return all_lanes(load_word(group + how.second_at)) >> how.second & how.mask;
#endif
}
#endif

/* ---- Groups of eight codes: from bytes or 16-bit words to bits, and back ---------------------- */

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
static void pack_bytes(const uint64_t *words, int64_t bytes, uint64_t width, uint8_t *out)
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
static void unpack_bytes(
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
static void pack_wide(uint64_t *words, int64_t bytes, uint64_t width, uint8_t *out)
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
static void unpack_wide(
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

/* ---- What is measured before anything is coded ------------------------------------------------ */

/* Map the bits of a float to an integer that sorts as the float does; its own inverse. */
static inline int32_t ordered(int32_t pattern)
{
    return pattern ^ ((pattern >> 31) & INT32_MAX);
}

typedef struct {
    int32_t lows[LANES], highs[LANES];
    double totals[LANES], squares[LANES], magnitudes[LANES];
} Measured;

#ifdef VECTOR
/* Measure whole rows of LANES values; return how many values that were. */
static int64_t measure_rows(const float *values, int64_t size, Measured *found)
{
    enum { FOURS = LANES / AT_ONCE, EIGHTS = LANES / LONG_AT_ONCE };
    const int64_t whole = size / LANES * LANES;
    const SignedLanes magnitude = {0};
    Integers lows[FOURS], highs[FOURS];
    Doubles totals[EIGHTS], squares[EIGHTS], magnitudes[EIGHTS];

    memcpy(lows, found->lows, sizeof lows);
    memcpy(highs, found->highs, sizeof highs);
    memcpy(totals, found->totals, sizeof totals);
    memcpy(squares, found->squares, sizeof squares);
    memcpy(magnitudes, found->magnitudes, sizeof magnitudes);
    /* Twice over each block, which is in the cache then: compilers that see one load where there
     * are two, of integers and of half as many floats, take it apart at great length. */
    for (int64_t start = 0; start < whole; start += QUANTIZE_BLOCK) {
        const int64_t end = least(start + QUANTIZE_BLOCK, whole);
        for (int64_t row = start; row < end; row += LANES) {
            for (int part = 0; part < FOURS; part++) {
                Integers patterns;
                memcpy(&patterns, values + row + part * AT_ONCE, sizeof patterns);
                patterns ^= (patterns >> 31) & INT32_MAX;
                lows[part] = lowest(patterns, lows[part]);
                highs[part] = highest(patterns, highs[part]);
            }
        }
        for (int64_t row = start; row < end; row += LANES) {
            for (int part = 0; part < EIGHTS; part++) {
                HalfFloats floats;
                memcpy(&floats, values + row + part * LONG_AT_ONCE, sizeof floats);
                const Doubles exact = __builtin_convertvector(floats, Doubles);
                totals[part] += exact;
                squares[part] += exact * exact;
                magnitudes[part] += (Doubles)((SignedLanes)exact & (magnitude + INT64_MAX));
            }
        }
    }
    memcpy(found->lows, lows, sizeof lows);
    memcpy(found->highs, highs, sizeof highs);
    memcpy(found->totals, totals, sizeof totals);
    memcpy(found->squares, squares, sizeof squares);
    memcpy(found->magnitudes, magnitudes, sizeof magnitudes);
    return whole;
}
#endif

int32_t LOOP(statistics)(const float *values, int64_t size, float *ends, double *sums)
{
    Measured found = {.totals = {0}};
    int64_t start = 0;

    if (size < 1 || size > MOST_CODES) {
        return BAD_ARGUMENT;
    }
    for (int lane = 0; lane < LANES; lane++) {
        found.lows[lane] = INT32_MAX;
        found.highs[lane] = INT32_MIN;
    }
#ifdef VECTOR
    start = measure_rows(values, size, &found);
#endif
    for (int64_t i = start; i < size; i++) {
        const int lane = (int)(i % LANES);
        const double value = (double)values[i];
        int32_t pattern;
        /* Integers are compared: a least float, with its rules for NaN, is slower. */
        memcpy(&pattern, values + i, sizeof pattern);
        pattern = ordered(pattern);
        found.lows[lane] = pattern < found.lows[lane] ? pattern : found.lows[lane];
        found.highs[lane] = pattern > found.highs[lane] ? pattern : found.highs[lane];
        found.totals[lane] += value;
        found.squares[lane] += value * value;
        found.magnitudes[lane] += value < 0 ? -value : value;
    }
    for (int lane = 1; lane < LANES; lane++) {
        found.lows[0] = found.lows[lane] < found.lows[0] ? found.lows[lane] : found.lows[0];
        found.highs[0] = found.highs[lane] > found.highs[0] ? found.highs[lane] : found.highs[0];
        found.totals[0] += found.totals[lane];
        found.squares[0] += found.squares[lane];
        found.magnitudes[0] += found.magnitudes[lane];
    }
    const int32_t both[2] = {ordered(found.lows[0]), ordered(found.highs[0])};
    memcpy(ends, both, sizeof both);
    sums[0] = found.totals[0];
    sums[1] = found.squares[0];
    sums[2] = found.magnitudes[0];
    return DONE;
}

/* ---- From values to codes --------------------------------------------------------------------- */

/* Mix 32 bits: `lowbias32` of C. Wellons, "Prospecting for hash functions" (2018). */
static inline uint32_t mixed(uint32_t x)
{
    x ^= x >> 16;
    x *= 0x7FEB352Du;
    x ^= x >> 15;
    x *= 0x846CA68Bu;
    return x ^ x >> 16;
}

typedef struct {
    float lo, inverse_step, unit, top;
    uint32_t fraction, half, shift, counter, key1;
    int nearest;
} Rounding;

/* Return the code of value i of a block. */
SPECIAL uint32_t code_of(float value, uint32_t i, Rounding how)
{
    const uint32_t dither =
        how.nearest ? how.half : mixed((how.counter + i * WEYL) ^ how.key1) & how.fraction;
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
    Words dither = how.half - (Words){0};
    memcpy(&scaled, values, sizeof scaled);
    scaled = (scaled - how.lo) * factor;
    scaled = smaller(greater(scaled, (Floats){0}), how.top - (Floats){0});
    if (!how.nearest) {
        Words x = *counters ^ how.key1;
        x ^= x >> 16;
        x *= 0x7FEB352Du;
        x ^= x >> 15;
        x *= 0x846CA68Bu;
        dither = (x ^ x >> 16) & how.fraction;
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
    int64_t width, int64_t nearest, uint32_t key0, uint32_t key1, uint8_t *out, int64_t out_bytes)
{
    Block block;

    if (!are_possible(bits, width) || !holds(out_bytes, size, width)) {
        return BAD_ARGUMENT;
    }
    const uint32_t shift = (uint32_t)(31 - bits);
    const float unit = (float)((uint32_t)1 << shift);
    Rounding how = {
        .lo = lo, .inverse_step = inverse_step, .unit = unit,
        .top = (float)(((uint32_t)1 << bits) - 1) * unit,
        .fraction = ((uint32_t)1 << shift) - 1, .half = (uint32_t)1 << (shift - 1), .shift = shift,
        .key1 = key1,
    };
    for (int64_t start = 0; start < size; start += QUANTIZE_BLOCK) {
        const int64_t count = least(QUANTIZE_BLOCK, size - start);
        const float *part = values + start;
        uint8_t *to = out + start * width / 8;

        how.counter = (first + (uint32_t)start) * WEYL + key0;
        if (width <= NARROW) {
            uint8_t *codes = width == NARROW ? to : block.narrow;
            if (nearest) {
                how.nearest = 1;
                quantize_block(part, count, how, codes, NULL);
            } else {
                how.nearest = 0;
                quantize_block(part, count, how, codes, NULL);
            }
            if (width < NARROW) {
                memset(block.narrow + count, 0, GROUP);
                pack_bytes(block.words, packed_bytes(count, width), (uint64_t)width, to);
            }
        } else {
            if (nearest) {
                how.nearest = 1;
                quantize_block(part, count, how, NULL, block.wide);
            } else {
                how.nearest = 0;
                quantize_block(part, count, how, NULL, block.wide);
            }
            memset(block.wide + count, 0, GROUP * sizeof(uint16_t));
            pack_wide(block.words, packed_bytes(count, width), (uint64_t)width, to);
        }
    }
    return DONE;
}

/* ---- From codes to values --------------------------------------------------------------------- */

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

/* ---- Codes in other forms --------------------------------------------------------------------- */

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
            memset(block.narrow + count, 0, GROUP);
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
            memset(block.wide + count, 0, (count < DECODE_BLOCK ? GROUP : 0) * sizeof(uint16_t));
            if (new_width <= NARROW) {
                uint64_t words[DECODE_BLOCK / 8 + 1];
                uint8_t *narrow = (uint8_t *)words;
                for (int64_t i = 0; i < count; i++) {
                    narrow[i] = (uint8_t)block.wide[i];
                }
                memset(narrow + count, 0, GROUP);
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
        memset(block.narrow + count, 0, GROUP);
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

/* ---- Sums of values --------------------------------------------------------------------------- */

/* To the nearest integer, halves to the even one, below 2^62. A double above 2^52 has no fraction,
 * so the sum with 1.5 * 2^52 is rounded, and its lowest bits are the integer. Of what is too large
 * for that, the upper 32 bits are taken off first; what is left is exact. */
static inline uint64_t rounded(double x)
{
    const double large = 0x1.8p52;
    const double upper = x * 0x1p-32 + large;
    const double lower = (x - (upper - large) * 0x1p32) + large;
    uint64_t high, low, none;
    memcpy(&high, &upper, sizeof high);
    memcpy(&low, &lower, sizeof low);
    memcpy(&none, &large, sizeof none);
    return ((high - none) << 32) + (low - none);
}

#ifdef VECTOR
static inline Lanes rounded_lanes(Doubles x)
{
#if VECTOR == 64
    return (Lanes)_mm512_cvtpd_epi64((__m512d)x);
#elif defined(__aarch64__)
    return (Lanes)vcvtnq_s64_f64((float64x2_t)x);
#else
    const Doubles large = 0x1.8p52 - (Doubles){0};
    const Doubles upper = x * 0x1p-32 + large;
    const Doubles lower = (x - (upper - large) * 0x1p32) + large;
    return (((Lanes)upper - (Lanes)large) << 32) + ((Lanes)lower - (Lanes)large);
#endif
}
#endif

int32_t LOOP(accumulate_raw)(
    const float *values, double factor, int64_t sign, int64_t *total, int64_t size)
{
    int64_t i = 0;

    if (size < 0 || size > MOST_CODES) {
        return BAD_ARGUMENT;
    }
    const double signed_factor = sign < 0 ? -factor : factor;
#ifdef VECTOR
    for (; i + LONG_AT_ONCE <= size; i += LONG_AT_ONCE) {
        HalfFloats floats;
        Lanes sum;
        memcpy(&floats, values + i, sizeof floats);
        memcpy(&sum, total + i, sizeof sum);
        const Doubles x = __builtin_convertvector(floats, Doubles) * signed_factor;
        sum += rounded_lanes(x);
        memcpy(total + i, &sum, sizeof sum);
    }
#endif
    for (; i < size; i++) {
        total[i] = (int64_t)((uint64_t)total[i] + rounded((double)values[i] * signed_factor));
    }
    return DONE;
}

int32_t LOOP(add_scaled)(
    const float *base, const int64_t *total, double scale, float *out, int64_t size)
{
    int64_t i = 0;

    if (size < 0 || size > MOST_CODES) {
        return BAD_ARGUMENT;
    }
#ifdef VECTOR
    for (; i + LONG_AT_ONCE <= size; i += LONG_AT_ONCE) {
        HalfFloats before;
        SignedLanes sum;
        memcpy(&before, base + i, sizeof before);
        memcpy(&sum, total + i, sizeof sum);
#if VECTOR == 64 || defined(__aarch64__)
        const Doubles exact = __builtin_convertvector(sum, Doubles);
#else
        /* 2^84 + 2^63 + the upper 32 bits, and 2^52 + the lower ones: both are exact, their
         * difference from 2^84 + 2^63 + 2^52 is, and only the last sum is rounded. */
        const Lanes upper = (Lanes)sum >> 32 ^ 0x4530000080000000u;
        const Lanes lower = ((Lanes)sum & 0xFFFFFFFFu) | 0x4330000000000000u;
        const Doubles exact = ((Doubles)upper - 0x1.00000801p84) + (Doubles)lower;
#endif
        before += __builtin_convertvector(exact * scale, HalfFloats);
        memcpy(out + i, &before, sizeof before);
    }
#endif
    for (; i < size; i++) {
        out[i] = base[i] + (float)((double)total[i] * scale);
    }
    return DONE;
}

/* ---- The stages of the entropy coder ---------------------------------------------------------- */

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
