/* Decodes what docs/reference/wire-format.md describes. C99.
 *
 *   cc -std=c99 -O2 -o decode docs/reference/decode.c
 *   cc -std=c99 -O2 -DWITH_ZSTD -o decode docs/reference/decode.c -lzstd
 *
 *   decode BITS LO HI VALUES < code-bytes     the codes of one tensor over a range, or raw values
 *   decode FILE                               a captured payload
 *
 * BITS is 1 to 16, or 32 for raw; LO and HI are binary32 bit patterns in hex (0 0 for raw).
 * Prints the bit pattern of each value on a line of its own, and nothing if anything is wrong.
 * Blocks of kinds 1 and 2 need zstd; those of kind 4, coded by what both ends know, need no library.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef WITH_ZSTD
#include <zstd.h>
#endif

enum { UNIFORM_WIDEST = 16, RAW_BITS = 32, DEEPEST_SPLIT = 6 };
enum { CODEC_RAW = 1, CODEC_UNIFORM = 2, CODEC_STEP = 3, CODEC_ZERO = 4 };

typedef struct {
    const uint8_t *at;
    size_t size;
} Bytes;

static const uint8_t NO_BYTE;
static const Bytes NOTHING = {&NO_BYTE, 0};
/* No value or end of a range is beyond it. */
static const double LARGEST = 0x1p126;
static const float SMALLEST_STEP = 0x1p-126f;

static void fail(const char *why)
{
    fprintf(stderr, "decode: %s\n", why);
    exit(1);
}

static void require(int holds, const char *why)
{
    if (!holds)
        fail(why);
}

static void *allocate(uint64_t count, size_t size)
{
    void *memory = NULL;
    if (count <= SIZE_MAX / size)
        memory = calloc(count ? (size_t)count : 1, size);
    require(memory != NULL, "not enough memory");
    return memory;
}

/* Take the next `size` bytes off. */
static Bytes take(Bytes *from, uint64_t size, const char *why)
{
    require(size <= from->size, why);
    Bytes taken = {from->at, (size_t)size};
    from->at += size;
    from->size -= (size_t)size;
    return taken;
}

/* ---- Codes and values (sections 2 and 3) ---- */

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

static uint64_t packed_bytes(uint64_t values, unsigned bits)
{
    return (values * bits + 7) / 8;
}

static float quantization_step(float lo, float hi, unsigned bits)
{
    return (float)(((double)hi - (double)lo) / (double)((1u << bits) - 1));
}

static float value_of(uint32_t code, double lo, float step)
{
    return (float)(lo + (double)step * (double)code);
}

static void print_pattern(float value)
{
    uint32_t pattern;
    memcpy(&pattern, &value, sizeof pattern);
    printf("%08" PRIx32 "\n", pattern);
}

/* ---- protobuf: a field is a number, a wire type, and an integer or bytes ---- */

enum { VARINT = 0, FIXED64 = 1, DELIMITED = 2, FIXED32 = 5 };

typedef struct {
    uint64_t number, value;
    unsigned type;
    Bytes bytes;
} Field;

static uint64_t varint(Bytes *from)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t byte = *take(from, 1, "protobuf ends in a number").at;
        value |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80)
            return value;
    }
    fail("protobuf has a number of more than 64 bits");
    return 0;
}

static uint64_t fixed(Bytes *from, unsigned size)
{
    Bytes bytes = take(from, size, "protobuf ends in a number");
    uint64_t value = 0;
    for (unsigned k = 0; k < size; k++)
        value |= (uint64_t)bytes.at[k] << 8 * k;
    return value;
}

/* Take the next field off a message; return 0 at its end. */
static int next(Bytes *message, Field *found)
{
    if (message->size == 0)
        return 0;
    uint64_t tag = varint(message);
    memset(found, 0, sizeof *found);
    found->number = tag >> 3;
    found->type = (unsigned)(tag & 7);
    if (found->type == VARINT)
        found->value = varint(message);
    else if (found->type == FIXED32 || found->type == FIXED64)
        found->value = fixed(message, found->type == FIXED32 ? 4 : 8);
    else if (found->type == DELIMITED)
        found->bytes = take(message, varint(message), "protobuf ends in a field");
    else
        fail("protobuf has a field of an unknown type");
    return 1;
}

static int is(const Field *found, uint64_t number, unsigned type)
{
    return found->number == number && found->type == type;
}

/* Numbers of a repeated field come packed, or one by one: return 0 if there is no further one. */
static int next_number(Field *found, uint64_t *number)
{
    if (found->type == DELIMITED && found->bytes.size > 0) {
        *number = varint(&found->bytes);
        return 1;
    }
    if (found->type == VARINT) {
        *number = found->value;
        found->type = DELIMITED; /* without bytes: it has no other */
        return 1;
    }
    return 0;
}

/* ---- Entropy-coded blocks (section 4) ---- */

/* Write what a zstd frame without its start holds, at most `most` bytes; return how many. */
static size_t unframe(Bytes data, uint8_t *out, size_t most)
{
#ifdef WITH_ZSTD
    static const uint8_t start[5] = {0x28, 0xb5, 0x2f, 0xfd, 0x00};
    size_t size = sizeof start + data.size;
    uint8_t *frame = allocate(size, 1);
    memcpy(frame, start, sizeof start);
    if (data.size > 0)
        memcpy(frame + sizeof start, data.at, data.size);
    /* The first byte is the window's: its exponent above 10 in the upper 5 bits, here at most 7. */
    require(data.size > 0 && data.at[0] <= 7 << 3, "a frame's window is above 128 KiB");
    require(ZSTD_findFrameCompressedSize(frame, size) == size, "a block is not one frame");
    size_t written = ZSTD_decompress(out, most, frame, size);
    require(!ZSTD_isError(written), "a frame is broken or too long");
    free(frame);
    return written;
#else
    (void)data, (void)out, (void)most;
    fail("a block of kind 1 or 2 needs zstd: compile with -DWITH_ZSTD and -lzstd");
    return 0;
#endif
}

/* Write the `size` bytes that a block was coded from; `splits` may still be in each other. */
static void expand(Bytes block, uint8_t *out, uint64_t size, int splits)
{
    uint8_t kind = *take(&block, 1, "a block is empty").at;
    if (kind == 0) {
        require(block.size == size, "a block has another length");
        if (size > 0)
            memcpy(out, block.at, block.size);
    } else if (kind == 1) {
        require(unframe(block, out, (size_t)size) == size, "a block has another length");
    } else if (kind == 2) {
        uint8_t *frame = allocate(size, 1);
        Bytes inner = {frame, unframe(block, frame, (size_t)size)};
        require(unframe(inner, out, (size_t)size) == size, "a block has another length");
        free(frame);
    } else {
        require(kind == 3 && splits > 0, "a block is of an unknown kind, or split too often");
        uint8_t mode = *take(&block, 1, "a split block ends early").at;
        uint64_t flags_size = fixed(&block, 3), last = size / 8, others_size = 0, taken = 0;
        uint8_t *flags = allocate(last + 1, 1);
        expand(take(&block, flags_size, "a split block ends early"), flags, last + 1, splits - 1);
        require(flags[last] >> size % 8 == 1, "a split block has another length");
        for (uint64_t k = 0; k < size; k++)
            others_size += flags[k / 8] >> k % 8 & 1;
        uint8_t *others = allocate(others_size, 1);
        expand(block, others, others_size, splits - 1);
        for (uint64_t k = 0; k < size; k++)
            out[k] = flags[k / 8] >> k % 8 & 1 ? others[taken++] : mode;
        free(flags);
        free(others);
    }
}

/* ---- Codes by classes (section 4) ---- */

enum { BY_CLASSES = 4, CLASSES = 64, TURNED = 128, SIZES = 15, LAST_PAST = 14 };
enum { FIRST_BLOCK = 32, LARGEST_BLOCK = 4096, ODDS = 1 << 16 };

/* The class of value i of an update, with TURNED added where the sign is turned. */
static uint8_t class_by_rounding(uint32_t i, unsigned bits, uint32_t word0, uint32_t word1)
{
    uint32_t x = (i * 0x9E3779B9u + word0) ^ word1;
    x = (x ^ x >> 16) * 0x7FEB352Du;
    x = (x ^ x >> 15) * 0x846CA68Bu;
    x = x ^ x >> 16;
    uint32_t u = x << (bits + 1), turned = u < 1u << 31, pattern;
    float t = (float)((turned ? u : UINT32_MAX - u) >> 7);
    memcpy(&pattern, &t, sizeof pattern);
    uint32_t class = 301 - (pattern >> 22);
    return (uint8_t)((class < 18 ? class : 18) | (turned ? TURNED : 0));
}

/* The class of a value of a difference. */
static uint8_t class_by_past(unsigned past)
{
    static const unsigned side_of[5] = {0, 1, 1, 2, 2}, distance_of[5] = {0, 1, 2, 1, 2};
    if (past > LAST_PAST)
        past = 0;
    unsigned a = past % 5, before = past / 5, side = side_of[a], class = 16 * distance_of[a];
    if (before > 0)
        class += a == 0 || before == side ? 1 : 2;
    return (uint8_t)(class | ((a == 0 ? before : side) == 2 ? TURNED : 0));
}

typedef struct {
    uint64_t yes, all, odds;
} Question;

typedef struct {
    Question is_other[CLASSES], is_minus[CLASSES], is_more[CLASSES / 16][SIZES];
} Questions;

typedef struct {
    Bytes rest;
    uint64_t value, range; /* the number that is read, above low, and what it is below */
    unsigned lacking;      /* bytes that were read behind the end */
} RangeDecoder;

static Question asked_first(uint64_t odds)
{
    Question question = {4 * odds, 4, odds};
    return question;
}

static void begin_questions(Questions *all)
{
    static const uint16_t first[SIZES] = {5986, 9849, 14006, 17965, 21423, 24263, 26495, 28196,
                                          29465, 30396, 31073, 31560, 31909, 32158, 32336};
    for (int c = 0; c < CLASSES; c++) {
        all->is_other[c] = asked_first(first[c < SIZES ? c : SIZES - 1]);
        all->is_minus[c] = asked_first(1 << 12);
    }
    for (int c = 0; c < CLASSES / 16; c++)
        for (int size = 0; size < SIZES; size++)
            all->is_more[c][size] = asked_first(1 << 13);
}

static void end_block_of(Question *questions, int count)
{
    for (Question *of = questions; of < questions + count; of++) {
        of->odds = of->yes / of->all;
        of->odds = of->odds < 1 ? 1 : of->odds > ODDS - 1 ? ODDS - 1 : of->odds;
        if (of->all > ODDS) {
            of->yes /= 2;
            of->all /= 2;
        }
    }
}

static uint64_t read_on(RangeDecoder *from)
{
    uint64_t word = 0;
    for (int k = 0; k < 4; k++) {
        word <<= 8;
        if (from->rest.size > 0)
            word |= *take(&from->rest, 1, "").at;
        else
            from->lacking++;
    }
    require(from->lacking <= 8, "a block by classes ends early");
    return word;
}

static int answer(RangeDecoder *from, uint64_t odds)
{
    uint64_t no = (from->range >> 16) * (ODDS - odds);
    int yes = from->value >= no;
    from->value -= yes ? no : 0;
    from->range = yes ? from->range - no : no;
    if (from->range < (uint64_t)1 << 32) {
        from->value = from->value << 32 | read_on(from);
        from->range <<= 32;
    }
    return yes;
}

static int answer_and_count(RangeDecoder *from, Question *question)
{
    int yes = answer(from, question->odds);
    question->all++;
    question->yes += yes ? ODDS : 0;
    return yes;
}

/* How far a code is from that of 0. */
static int32_t distance(RangeDecoder *from, Questions *all, uint8_t class)
{
    unsigned number = class & (CLASSES - 1), digits = 0;
    if (!answer_and_count(from, &all->is_other[number]))
        return 0;
    int turned = (class & TURNED) != 0;
    int minus = answer_and_count(from, &all->is_minus[number]) != turned;
    int32_t size = 1, above = 1;
    while (size <= SIZES && answer_and_count(from, &all->is_more[number / 16][size - 1]))
        size++;
    if (size > SIZES) {
        while (answer(from, ODDS / 2))
            require(++digits <= 8, "a code has too many bits");
        for (; digits > 0; digits--)
            above = 2 * above + answer(from, ODDS / 2);
        size = SIZES + above;
    }
    return minus ? -size : size;
}

/* Write the `count` codes of `bits` bits, a byte each, that a block stands for; its kind is taken. */
static void decode_by_classes(
    Bytes block, const uint8_t *classes, uint64_t count, int32_t zero, unsigned bits, uint8_t *codes)
{
    Questions all;
    RangeDecoder from = {block, 0, UINT64_MAX, 0};
    uint64_t size = FIRST_BLOCK, end = FIRST_BLOCK;
    from.value = read_on(&from) << 32;
    from.value |= read_on(&from);
    require(from.value < from.range, "a block by classes holds no codes");
    begin_questions(&all);
    for (uint64_t i = 0; i < count; i++) {
        int32_t code = zero + distance(&from, &all, classes[i]);
        require(code >= 0 && code >> bits == 0, "a code has too many bits");
        codes[i] = (uint8_t)code;
        if (i + 1 == end) {
            end_block_of(all.is_other, CLASSES);
            end_block_of(all.is_minus, CLASSES);
            end_block_of(all.is_more[0], CLASSES / 16 * SIZES);
            size = size < LARGEST_BLOCK ? 2 * size : size;
            end += size;
        }
    }
    require(from.rest.size == 0, "a block by classes is too long");
}

/* ---- A captured payload (section 7) ---- */

/* Fields of Chunk. */
enum { OFFSET = 2, DATA = 3, CODE_BYTES = 4, CODED_BYTES = 5, PAST = 6 };

typedef struct {
    uint64_t values, first; /* how many, and how many are in the tensors before */
    uint64_t code_bytes, start;
    uint32_t codec, bits, zero;
    uint32_t word0, word1; /* of the numbers by which an update is rounded */
    int has_lo, has_hi;
    float lo, hi, step;
} Tensor;

typedef struct {
    Tensor *tensors;
    uint64_t count, values, code_bytes;
    int has_keys;
    uint8_t *pasts; /* one for each value */
    float *out;
} Payload;

static uint64_t count_fields(Bytes message, uint64_t number)
{
    uint64_t count = 0;
    Field found;
    while (next(&message, &found))
        if (is(&found, number, DELIMITED))
            count++;
    return count;
}

static uint64_t values_in(Bytes spec)
{
    uint64_t values = 1, extent, type = 0;
    Field found;
    while (next(&spec, &found)) {
        if (is(&found, 3, VARINT))
            type = found.value;
        while (found.number == 2 && next_number(&found, &extent)) {
            require(extent <= UINT32_MAX, "a tensor has 2^32 values or more");
            values *= extent;
            require(values <= UINT32_MAX, "a tensor has 2^32 values or more");
        }
    }
    require(type == 1, "a tensor is not float32");
    return values;
}

static uint32_t limited(uint64_t value)
{
    return value < UINT32_MAX ? (uint32_t)value : UINT32_MAX;
}

static double origin(const Tensor *tensor)
{
    if (tensor->codec == CODEC_STEP)
        return -((double)tensor->zero * (double)tensor->step);
    return (double)tensor->lo;
}

static void check_range(double lo, double hi)
{
    require(-LARGEST <= lo && lo <= hi && hi <= LARGEST, "a tensor's range is none");
}

static void check_header(const Tensor *tensor)
{
    int is_width = tensor->bits >= 1 && tensor->bits <= UNIFORM_WIDEST;
    if (tensor->codec == CODEC_UNIFORM) {
        require(is_width && tensor->has_lo && tensor->has_hi, "a tensor has no bits or range");
        check_range((double)tensor->lo, (double)tensor->hi);
    } else if (tensor->codec == CODEC_STEP) {
        require(is_width && tensor->zero >> tensor->bits == 0, "a tensor has no code for 0");
        require(tensor->step >= SMALLEST_STEP, "a quantization step is too small");
        double width = (double)tensor->step * (double)((1u << tensor->bits) - 1);
        check_range(origin(tensor), origin(tensor) + width);
    } else if (tensor->codec == CODEC_RAW) {
        require(tensor->bits == RAW_BITS, "a raw tensor has other than 32 bits");
    } else {
        require(tensor->codec == CODEC_ZERO && tensor->bits == 0, "a tensor's codec is unknown");
    }
}

static void read_header(Bytes message, Tensor *tensor)
{
    Field found;
    while (next(&message, &found)) {
        float value = float_of((uint32_t)found.value);
        if (is(&found, 1, VARINT))
            tensor->codec = limited(found.value);
        else if (is(&found, 2, VARINT))
            tensor->bits = limited(found.value);
        else if (is(&found, 3, FIXED32))
            tensor->lo = value, tensor->has_lo = 1;
        else if (is(&found, 4, FIXED32))
            tensor->hi = value, tensor->has_hi = 1;
        else if (is(&found, 5, FIXED32))
            tensor->step = value;
        else if (is(&found, 6, VARINT))
            tensor->zero = limited(found.value);
    }
    check_header(tensor);
}

/* Write the values of `count` codes, each in `width` bits. */
static void dequantize(
    const Tensor *tensor, const uint8_t *codes, unsigned width, uint64_t count, float *out)
{
    double lo = origin(tensor);
    float step = tensor->step;
    if (tensor->codec == CODEC_UNIFORM)
        step = quantization_step(tensor->lo, tensor->hi, tensor->bits);
    for (uint64_t i = 0; i < count; i++) {
        uint32_t code = field(codes, width, i);
        out[i] = tensor->codec == CODEC_RAW ? float_of(code) : value_of(code, lo, step);
        /* A rounded step may lift the last code above the range. */
        require(tensor->codec != CODEC_RAW
                    || (-LARGEST <= (double)out[i] && (double)out[i] <= LARGEST),
                "a raw value is not finite");
    }
}

/* Values of one tensor, from number `first` to `last` (not included), that a chunk holds. */
typedef struct {
    uint64_t first, last, code_bytes;
} Part;

/* Write the values of the codes of a tensor that a chunk holds entropy-coded. */
static void decode_block(const Tensor *tensor, Bytes coded, uint64_t count, float *out)
{
    unsigned bits = tensor->bits, width = 1;
    require(bits <= UNIFORM_WIDEST, "raw values are entropy-coded");
    if (bits <= 8) {
        while (width < bits)
            width *= 2;
        uint64_t size = packed_bytes(count, width);
        uint8_t *codes = allocate(size, 1);
        expand(coded, codes, size, DEEPEST_SPLIT);
        dequantize(tensor, codes, width, count, out);
        free(codes);
        return;
    }
    uint64_t low_size = packed_bytes(count, bits - 8);
    require(low_size <= coded.size, "a block ends before the low bits");
    Bytes high_part = take(&coded, coded.size - low_size, "a block ends early");
    uint8_t *high = allocate(count, 1), *words = allocate(count, 2);
    expand(high_part, high, count, DEEPEST_SPLIT);
    for (uint64_t i = 0; i < count; i++) {
        uint32_t code = (uint32_t)high[i] << (bits - 8) | field(coded.at, bits - 8, i);
        words[2 * i] = (uint8_t)(code & 0xFF);
        words[2 * i + 1] = (uint8_t)(code >> 8);
    }
    dequantize(tensor, words, 16, count, out);
    free(high);
    free(words);
}

/* The same, coded by classes; `coded` begins behind the kind. */
static void decode_known(const Payload *payload, const Tensor *tensor, Part part, Bytes coded)
{
    uint64_t count = part.last - part.first, place = tensor->first + part.first;
    uint8_t *classes = allocate(count, 1), *codes = allocate(count, 1);
    for (uint64_t i = 0; i < count; i++)
        classes[i] = payload->has_keys
            ? class_by_rounding(
                (uint32_t)(part.first + i), tensor->bits, tensor->word0, tensor->word1)
            : class_by_past(payload->pasts[place + i]);
    decode_by_classes(coded, classes, count, (int32_t)tensor->zero, tensor->bits, codes);
    dequantize(tensor, codes, 8, count, payload->out + place);
    free(classes);
    free(codes);
}

/* Take the next of a chunk's `coded_bytes`, of which `list` is the field that is being read. */
static int next_length(Bytes *chunk, Field *list, uint64_t *length)
{
    while (list->number != CODED_BYTES || !next_number(list, length))
        if (!next(chunk, list))
            return 0;
    return 1;
}

/* Find what a chunk from code byte `at` to `end` holds of a tensor; return 0 if nothing. */
static int has_part(const Tensor *tensor, uint64_t at, uint64_t end, Part *part)
{
    uint64_t stop = tensor->start + tensor->code_bytes;
    if (tensor->code_bytes == 0 || stop <= at || tensor->start >= end)
        return 0;
    uint64_t from = at > tensor->start ? at - tensor->start : 0;
    uint64_t to = (end < stop ? end : stop) - tensor->start;
    unsigned group = tensor->bits == RAW_BITS ? 4 : tensor->bits;
    unsigned in_group = tensor->bits == RAW_BITS ? 1 : 8;
    require(from % group == 0 && (to == tensor->code_bytes || to % group == 0),
            "a chunk splits a group of values");
    part->first = from / group * in_group;
    part->last = to == tensor->code_bytes ? tensor->values : to / group * in_group;
    part->code_bytes = to - from;
    return 1;
}

/* Write the pasts of all values of a chunk, from its first to its last. */
static void read_pasts(const Payload *payload, uint64_t at, uint64_t end, Bytes block)
{
    uint64_t first = UINT64_MAX, last = 0;
    Part part;
    for (uint64_t t = 0; t < payload->count; t++) {
        const Tensor *tensor = &payload->tensors[t];
        if (has_part(tensor, at, end, &part)) {
            if (first == UINT64_MAX)
                first = tensor->first + part.first;
            last = tensor->first + part.last;
        }
    }
    uint64_t size = packed_bytes(last - first, 4);
    uint8_t *packed = allocate(size, 1);
    expand(block, packed, size, DEEPEST_SPLIT);
    for (uint64_t i = first; i < last; i++)
        payload->pasts[i] = (uint8_t)field(packed, 4, i - first);
    free(packed);
}

/* Decode a chunk that begins at code byte `at`; return where the next one begins. */
static uint64_t decode_chunk(Bytes message, const Payload *payload, uint64_t at)
{
    Bytes data = NOTHING, past = NOTHING, lengths = message;
    Field found, list = {0};
    uint64_t offset = 0, code_bytes = 0, coded_size = 0, total = payload->code_bytes;
    Part part;
    while (next(&message, &found)) {
        if (is(&found, OFFSET, VARINT))
            offset = found.value;
        else if (is(&found, DATA, DELIMITED))
            data = found.bytes;
        else if (is(&found, CODE_BYTES, VARINT))
            code_bytes = found.value;
        else if (is(&found, PAST, DELIMITED))
            past = found.bytes;
    }
    uint64_t length = code_bytes ? code_bytes : data.size, end = at + length;
    require(offset == at && length > 0 && length <= total - at, "a chunk is not the next one");
    if (past.size > 0)
        read_pasts(payload, at, end, past);
    for (uint64_t t = 0; t < payload->count; t++) {
        const Tensor *tensor = &payload->tensors[t];
        if (!has_part(tensor, at, end, &part))
            continue;
        if (code_bytes)
            require(next_length(&lengths, &list, &coded_size), "a chunk has too few lengths");
        uint64_t count = part.last - part.first;
        float *place = payload->out + tensor->first + part.first;
        Bytes content =
            take(&data, coded_size ? coded_size : part.code_bytes, "a chunk ends in its codes");
        int has_classes = tensor->codec == CODEC_STEP && tensor->bits <= 8;
        if (coded_size && has_classes && content.at[0] == BY_CLASSES) {
            take(&content, 1, "a block is empty");
            decode_known(payload, tensor, part, content);
        } else if (coded_size) {
            decode_block(tensor, content, count, place);
        } else {
            dequantize(tensor, content.at, tensor->bits, count, place);
        }
    }
    require(data.size == 0, "a chunk has bytes too many");
    require(!code_bytes || !next_length(&lengths, &list, &coded_size),
            "a chunk has too many lengths");
    return end;
}

/* Read the keys of an update, one for each tensor, if the file has any. */
static void read_keys(Bytes file, Payload *payload)
{
    uint64_t count = 0;
    Field found;
    while (next(&file, &found)) {
        Bytes numbers = found.bytes; /* packed, or one by one */
        if (found.number != 6 || (found.type != DELIMITED && found.type != FIXED64))
            continue;
        while (found.type == FIXED64 || numbers.size > 0) {
            uint64_t key = found.type == FIXED64 ? found.value : fixed(&numbers, 8);
            require(count < payload->count, "there are more keys than tensors");
            payload->tensors[count].word0 = (uint32_t)key;
            payload->tensors[count].word1 = (uint32_t)(key >> 32);
            count++;
            if (found.type == FIXED64)
                break;
        }
    }
    require(count == 0 || count == payload->count, "there are fewer keys than tensors");
    payload->has_keys = count > 0;
}

static void decode_payload(Bytes file)
{
    Bytes model = NOTHING, header = NOTHING, packed = NOTHING, rest = file;
    uint64_t chunks = count_fields(file, 5), specs = 0, headers = 0, values = 0, codes = 0, at = 0;
    uint64_t announced = 0;
    Field found;
    while (next(&rest, &found)) {
        if (is(&found, 1, DELIMITED))
            model = found.bytes;
        else if (is(&found, 2, DELIMITED))
            header = found.bytes;
        else if (is(&found, 3, DELIMITED))
            packed = found.bytes;
    }
    uint64_t count = count_fields(model, 1);
    require(count > 0, "no captured payload");
    require(count == count_fields(header, 3), "the header has another number of tensors");
    Tensor *tensors = allocate(count, sizeof *tensors);
    while (next(&model, &found))
        if (is(&found, 1, DELIMITED))
            tensors[specs++].values = values_in(found.bytes);
    while (next(&header, &found)) {
        if (is(&found, 3, DELIMITED))
            read_header(found.bytes, &tensors[headers++]);
        else if (is(&found, 2, VARINT))
            announced = found.value;
    }
    for (uint64_t t = 0; t < count; t++) {
        tensors[t].first = values;
        tensors[t].start = codes;
        tensors[t].code_bytes = packed_bytes(tensors[t].values, tensors[t].bits);
        values += tensors[t].values;
        codes += tensors[t].code_bytes;
    }
    require(announced == codes, "the header announces another number of code bytes");
    float *out = allocate(values, sizeof *out);
    Payload payload = {tensors, count, values, codes, 0, allocate(values, 1), out};
    read_keys(file, &payload);
    if (chunks > 0) {
        for (rest = file; next(&rest, &found);)
            if (is(&found, 5, DELIMITED))
                at = decode_chunk(found.bytes, &payload, at);
    } else { /* a file from before chunks were kept */
        require(packed.size == codes, "the file has another number of code bytes");
        for (uint64_t t = 0; t < count; t++)
            dequantize(&tensors[t], packed.at + tensors[t].start, tensors[t].bits,
                       tensors[t].code_bytes ? tensors[t].values : 0, out + tensors[t].first);
        at = codes;
    }
    require(at == codes, "chunks are missing");
    for (uint64_t i = 0; i < values; i++)
        print_pattern(out[i]);
    free(payload.pasts);
    free(out);
    free(tensors);
}

static int decode_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    require(file != NULL, "the file cannot be opened");
    uint8_t *content = NULL;
    size_t size = 0, room = 0, got;
    do {
        if (size == room) {
            room = room ? 2 * room : 1 << 16;
            content = realloc(content, room);
            require(content != NULL, "not enough memory");
        }
        got = fread(content + size, 1, room - size, file);
        size += got;
    } while (got > 0);
    require(!ferror(file), "the file cannot be read");
    fclose(file);
    Bytes whole = {content, size};
    decode_payload(whole);
    free(content);
    return 0;
}

static int decode_tensor(char **argv)
{
    unsigned bits = (unsigned)strtoul(argv[1], NULL, 10);
    float lo = float_of((uint32_t)strtoul(argv[2], NULL, 16));
    float hi = float_of((uint32_t)strtoul(argv[3], NULL, 16));
    uint64_t values = strtoull(argv[4], NULL, 10);
    if (!((bits >= 1 && bits <= UNIFORM_WIDEST) || bits == RAW_BITS) || values > UINT32_MAX)
        return fprintf(stderr, "decode: 1 to 16 bits or 32, fewer than 2^32 values\n"), 2;

    uint64_t length = packed_bytes(values, bits);
    uint8_t *bytes = allocate(length, 1);
    if (fread(bytes, 1, (size_t)length, stdin) != length)
        return fprintf(stderr, "decode: %" PRIu64 " bytes are needed\n", length), 1;

    float step = bits == RAW_BITS ? 0 : quantization_step(lo, hi, bits);
    for (uint64_t i = 0; i < values; i++) {
        uint32_t code = field(bytes, bits, i);
        print_pattern(bits == RAW_BITS ? float_of(code) : value_of(code, (double)lo, step));
    }
    free(bytes);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2)
        return decode_file(argv[1]);
    if (argc == 5)
        return decode_tensor(argv);
    return fprintf(stderr, "usage: decode FILE, or decode BITS LO HI VALUES < code-bytes\n"), 2;
}
