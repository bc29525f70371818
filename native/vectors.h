/* Vectors, where the compiler alone makes too little of plain loops. */
#ifndef FEDAQ_VECTORS_H
#define FEDAQ_VECTORS_H

#include "common.h"

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
 * - `lower_half` and `upper_half` of floats, as doubles;
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
#define lower_half(a) ((Doubles)_mm512_cvtps_pd(_mm512_castps512_ps256((__m512)(a))))
#define upper_half(a) ((Doubles)_mm512_cvtps_pd(_mm512_extractf32x8_ps((__m512)(a), 1)))
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
#define lower_half(a) ((Doubles)_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)(a))))
#define upper_half(a) ((Doubles)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)(a), 1)))
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
#define lower_half(a) ((Doubles)_mm_cvtps_pd((__m128)(a)))
#define upper_half(a) ((Doubles)_mm_cvtps_pd(_mm_movehl_ps((__m128)(a), (__m128)(a))))
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
#define lower_half(a) ((Doubles)vcvt_f64_f32(vget_low_f32((float32x4_t)(a))))
#define upper_half(a) ((Doubles)vcvt_high_f64_f32((float32x4_t)(a)))
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

#ifdef MOVES_BYTES
/* Move the bytes of a word; a place above 7 gives 0. */
static inline uint64_t picked(uint64_t bytes, uint64_t places)
{
#ifdef __aarch64__
    return vget_lane_u64(vreinterpret_u64_u8(vtbl1_u8(vcreate_u8(bytes), vcreate_u8(places))), 0);
#else
    const __m128i both = _mm_cvtsi64_si128((long long)bytes);
    return (uint64_t)_mm_cvtsi128_si64(
        _mm_shuffle_epi8(both, _mm_cvtsi64_si128((long long)places)));
#endif
}
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

#endif
