/* Sums of values: what is measured before they are coded, and the sum of updates. */
#include "vectors.h"

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
    for (int64_t row = 0; row < whole; row += LANES) {
        for (int part = 0; part < FOURS; part++) {
            Floats floats;
            memcpy(&floats, values + row + part * AT_ONCE, sizeof floats);
            Integers patterns = (Integers)floats;
            patterns ^= (patterns >> 31) & INT32_MAX;
            lows[part] = lowest(patterns, lows[part]);
            highs[part] = highest(patterns, highs[part]);
            const Doubles halves[2] = {lower_half(floats), upper_half(floats)};
            for (int half = 0; half < 2; half++) {
                const Doubles exact = halves[half];
                const int lanes = 2 * part + half;
                totals[lanes] += exact;
                squares[lanes] += exact * exact;
                magnitudes[lanes] += (Doubles)((SignedLanes)exact & (magnitude + INT64_MAX));
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
