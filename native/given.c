/* Codes of which both ends know something before: a range coder with odds for each class of values.
 *
 * What is coded of a value is whether it is 0; if not, its sign; then, one more or not, how large.
 * The odds of each such question are shares of 2^16 that follow what was coded before, so no table
 * travels. They are learned at the ends of blocks, which grow from FIRST_BLOCK values to LAST_BLOCK:
 * all divisions are there, and are of integers, so that every host has the same odds. */
#include "common.h"

/* The odds of a question: `yes` of `all` answers were yes, in shares of 2^16. */
typedef struct {
    uint64_t yes, all;
    uint32_t odds;
} Odds;

enum { SIZES = 15, LEVELS = 4, ODDS = 65536, FIRST_BLOCK = 32, LAST_BLOCK = 4096 };
/* Answers that the first odds are worth, and after how many the older ones count half. */
enum { PRIOR_WORTH = 4, MEMORY = 1 << 16 };

typedef struct {
    Odds other[CLASSES];        /* is it another one than 0? */
    Odds minus[CLASSES];        /* then: is it below 0? */
    Odds more[LEVELS][SIZES];   /* is its size more than this, and one? by its class */
} Model;

static inline Odds odds_of(uint32_t share)
{
    return (Odds){(uint64_t)PRIOR_WORTH * share, PRIOR_WORTH, share};
}

static inline void learn(Odds *of)
{
    const uint64_t share = of->yes / of->all;
    of->odds = (uint32_t)(share < 1 ? 1 : share > ODDS - 1 ? ODDS - 1 : share);
    if (of->all > MEMORY) {
        of->all >>= 1;
        of->yes >>= 1;
    }
}

static void learn_all(Model *model)
{
    for (int i = 0; i < CLASSES; i++) {
        learn(&model->other[i]);
        learn(&model->minus[i]);
    }
    for (int i = 0; i < LEVELS; i++) {
        for (int size = 0; size < SIZES; size++) {
            learn(&model->more[i][size]);
        }
    }
}

/* Each class begins with the odds of values that fall off exponentially and are a quarter of a step
 * on average, class i being a half octave of t: exp(-0.85 * 2^(1 - i / 2)) / 2, in shares of 2^16. */
static void begin(Model *model)
{
    static const uint16_t FIRST[] = {5986, 9849, 14006, 17965, 21423, 24263, 26495, 28196, 29465,
        30396, 31073, 31560, 31909, 32158, 32336};
    enum { LAST = sizeof FIRST / sizeof *FIRST - 1 };
    for (int i = 0; i < CLASSES; i++) {
        model->other[i] = odds_of(FIRST[i < LAST ? i : LAST]);
        model->minus[i] = odds_of(ODDS / 16);
    }
    for (int i = 0; i < LEVELS; i++) {
        for (int size = 0; size < SIZES; size++) {
            model->more[i][size] = odds_of(ODDS / 8);
        }
    }
}

static inline int64_t block_after(int64_t block)
{
    return least(2 * block, LAST_BLOCK);
}

static inline void count(Odds *of, int yes)
{
    of->all++;
    of->yes += yes ? ODDS : 0;
}

/* The range coder: numbers of 64 bits, 32 of which leave at a time. */
typedef struct {
    uint64_t low, range;
    uint8_t *out;
    int64_t written, room;
} Writer;

static inline void store_big(uint8_t *to, uint32_t word)
{
    to[0] = (uint8_t)(word >> 24);
    to[1] = (uint8_t)(word >> 16);
    to[2] = (uint8_t)(word >> 8);
    to[3] = (uint8_t)word;
}

static inline void carry(Writer *to)
{
    int64_t at = to->written;
    while (++to->out[--at] == 0) {
    }
}

/* Return whether there is room. */
SPECIAL int put(Writer *to, uint32_t odds, int yes)
{
    const uint64_t no = (to->range >> 16) * (ODDS - odds);
    if (yes) {
        to->low += no;
        to->range -= no;
        if (to->low < no) {
            carry(to);
        }
    } else {
        to->range = no;
    }
    if (to->range >> 32 == 0) {
        if (to->written + 4 > to->room) {
            return 0;
        }
        store_big(to->out + to->written, (uint32_t)(to->low >> 32));
        to->written += 4;
        to->low <<= 32;
        to->range <<= 32;
    }
    return 1;
}

/* Write as few bytes as tell the range; those that follow are read as 0. */
static int finish(Writer *to)
{
    for (int bytes = 0; bytes <= 8; bytes++) {
        const uint64_t below = bytes ? bytes < 8 ? ~(uint64_t)0 >> (8 * bytes) : 0 : ~(uint64_t)0;
        const uint64_t end = (to->low + below) & ~below;
        const uint64_t distance = end - to->low;
        if (distance >= to->range) {
            continue;
        }
        if (end < to->low) {
            carry(to);
        }
        for (int i = 0; i < bytes; i++) {
            if (to->written == to->room) {
                return 0;
            }
            to->out[to->written++] = (uint8_t)(end >> (56 - 8 * i));
        }
        return 1;
    }
    return 0;
}

/* A size of SIZES or more: how many bits it has above that, and these bits. */
SPECIAL int put_rest(Writer *to, uint32_t rest)
{
    int bits = 0;
    rest++;
    while (rest >> bits > 1) {
        bits++;
        if (!put(to, ODDS / 2, 1)) {
            return 0;
        }
    }
    if (!put(to, ODDS / 2, 0)) {
        return 0;
    }
    while (bits-- > 0) {
        if (!put(to, ODDS / 2, rest >> bits & 1)) {
            return 0;
        }
    }
    return 1;
}

SPECIAL int put_other(Writer *to, Model *model, uint32_t class, int32_t value)
{
    const uint32_t at = class & (CLASSES - 1);
    const int minus = (class & FOLD ? -value : value) < 0;
    const uint32_t size = (uint32_t)(value < 0 ? -value : value) - 1;
    Odds *more = model->more[at >> 4];
    uint32_t i = 0;

    if (!put(to, model->minus[at].odds, minus)) {
        return 0;
    }
    count(&model->minus[at], minus);
    for (; i < SIZES; i++) {
        const int is_more = size > i;
        if (!put(to, more[i].odds, is_more)) {
            return 0;
        }
        count(&more[i], is_more);
        if (!is_more) {
            return 1;
        }
    }
    return put_rest(to, size - SIZES);
}

int32_t LOOP(encode_given)(
    const uint8_t *codes, const uint8_t *classes, int64_t size, int64_t zero, uint8_t *out,
    int64_t out_bytes, int64_t *written)
{
    Model model;
    Writer to = {.low = 0, .range = ~(uint64_t)0, .out = out, .written = 0, .room = out_bytes};
    int64_t block = FIRST_BLOCK, i = 0;

    if (size < 0 || size > MOST_CODES || out_bytes < 0) {
        return BAD_ARGUMENT;
    }
    *written = -1;
    begin(&model);
    while (i < size) {
        for (const int64_t end = least(i + block, size); i < end; i++) {
            const int32_t value = codes[i] - (int32_t)zero;
            Odds *other = &model.other[classes[i] & (CLASSES - 1)];
            if (!put(&to, other->odds, value != 0)) {
                return DONE;
            }
            other->all++;
            if (value != 0) {
                other->yes += ODDS;
                if (!put_other(&to, &model, classes[i], value)) {
                    return DONE;
                }
            }
        }
        learn_all(&model);
        block = block_after(block);
    }
    if (finish(&to)) {
        *written = to.written;
    }
    return DONE;
}

typedef struct {
    uint64_t ahead, range; /* what lies ahead, above the low end of the range */
    const uint8_t *data;
    int64_t taken, bytes;
} Reader;

static inline uint32_t next_word(Reader *from)
{
    uint32_t word = 0;
    if (from->taken + 4 <= from->bytes) {
        const uint8_t *at = from->data + from->taken;
        word = (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
    } else {
        for (int64_t i = from->taken; i < from->bytes; i++) {
            word |= (uint32_t)from->data[i] << (24 - 8 * (i - from->taken));
        }
    }
    from->taken += 4;
    return word;
}

SPECIAL int got(Reader *from, uint32_t odds)
{
    const uint64_t no = (from->range >> 16) * (ODDS - odds);
    const int yes = from->ahead >= no;
    if (yes) {
        from->ahead -= no;
        from->range -= no;
    } else {
        from->range = no;
    }
    if (from->range >> 32 == 0) {
        from->ahead = from->ahead << 32 | next_word(from);
        from->range <<= 32;
    }
    return yes;
}

/* No code has more than 16 bits, so no rest has. */
SPECIAL uint32_t got_rest(Reader *from)
{
    uint32_t rest = 1;
    int bits = 0;
    while (bits < 16 && got(from, ODDS / 2)) {
        bits++;
    }
    while (bits-- > 0) {
        rest = rest << 1 | (uint32_t)got(from, ODDS / 2);
    }
    return rest - 1;
}

SPECIAL int32_t got_other(Reader *from, Model *model, uint32_t class)
{
    const uint32_t at = class & (CLASSES - 1);
    Odds *more = model->more[at >> 4];
    uint32_t size = 0;
    const int minus = got(from, model->minus[at].odds);

    count(&model->minus[at], minus);
    for (; size < SIZES; size++) {
        const int is_more = got(from, more[size].odds);
        count(&more[size], is_more);
        if (!is_more) {
            break;
        }
    }
    if (size == SIZES) {
        size += got_rest(from);
    }
    const int32_t value = (int32_t)size + 1;
    return minus == (class & FOLD ? 1 : 0) ? value : -value;
}

int32_t LOOP(decode_given)(
    const uint8_t *data, int64_t data_bytes, const uint8_t *classes, int64_t zero, int64_t bits,
    uint8_t *codes, int64_t size)
{
    Model model;
    Reader from = {.range = ~(uint64_t)0, .data = data, .bytes = data_bytes};
    int64_t block = FIRST_BLOCK, i = 0;
    uint32_t wrong = 0;

    if (size < 0 || size > MOST_CODES || data_bytes < 0 || bits < 1 || bits > NARROW || zero < 0
        || zero >> bits != 0) {
        return BAD_ARGUMENT;
    }
    from.ahead = (uint64_t)next_word(&from) << 32;
    from.ahead |= next_word(&from);
    begin(&model);
    while (i < size) {
        for (const int64_t end = least(i + block, size); i < end; i++) {
            Odds *other = &model.other[classes[i] & (CLASSES - 1)];
            int32_t code = (int32_t)zero;
            other->all++;
            if (got(&from, other->odds)) {
                other->yes += ODDS;
                code += got_other(&from, &model, classes[i]);
                wrong |= (uint32_t)code >> bits;
            }
            codes[i] = (uint8_t)code;
        }
        /* What was written ends at most 8 bytes before what is read. */
        if (wrong || from.taken > data_bytes + 8) {
            return BAD_ARGUMENT;
        }
        learn_all(&model);
        block = block_after(block);
    }
    return from.taken < data_bytes ? BAD_ARGUMENT : DONE;
}
