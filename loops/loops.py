"""The inner loops of the codec, in the form that numba compiles.

`make loops` keeps what numba makes of them (`emit.py`), and only that is installed.
`fedaq.codec.kernels` says how they are called, and what each one does. Every loop is a function
of C: it takes pointers and numbers, allocates nothing, raises nothing and calls nothing, so
that it can run without numba.

Loops over codes take any slice that starts at a multiple of `GROUP` values, so a tensor can
be coded in pieces, by any thread, with the same bytes. They touch the packed bytes 64 bits
at a time, in the order of a little-endian processor. Of narrow codes, the values are
computed once and then looked up; wide ones pass through the cache in blocks, 16 bits a code.

The same input gives the same bytes on every processor: codes come from single IEEE
float32 operations (subtract, multiply, compare, truncate; no ``a * b + c``) and integer
arithmetic, and where a product is added to something it is exact, so that fusing the
two changes nothing. Sums of floats are formed in a fixed order. No mathematical library is
called and fast-math is off. numba widens 32-bit integers to 64 bits unless each step is cast
back, which would halve the speed.
"""

from collections.abc import Callable
from ctypes import c_double, c_float, c_int64, c_uint32
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, njit, types
from numba.core import cgutils
from numba.np import arrayobj

from fedaq.codec.kernels import GROUP, PACK_BLOCK, SIGNATURES, UNPACK_BLOCK

# Of wider codes, a table of all pairs would not fit the nearest cache, nor a group a word.
PAIR_BITS = 6
PAIRS = 4**PAIR_BITS
SINGLE_BITS = 8
SINGLES = 2**SINGLE_BITS
# The values of the last groups of a slice, whose words would reach beyond its bytes.
TAIL = 8 * GROUP
# Partial sums that are formed beside each other, for the processor's vectors.
LANES = 16

F32 = np.float32
F64 = np.float64
I32 = np.int32
I64 = np.int64
U8 = np.uint8
U16 = np.uint16
U32 = np.uint32
U64 = np.uint64

# Words are read and written whole: those of a block's last group reach beyond its bytes.
OVERHANG = 16
PACK_SCRATCH = 2 * PACK_BLOCK + OVERHANG
UNPACK_SCRATCH = 2 * UNPACK_BLOCK + OVERHANG
# The odd integer nearest to 2**32 over the golden ratio.
WEYL = U32(0x9E3779B9)
ALL_ONES = U64(2**64 - 1)
EVERY_32_BITS = U64(2**32 + 1)

NUMBERS = {
    c_int64: types.int64, c_uint32: types.uint32, c_float: types.float32, c_double: types.float64
}  # fmt: skip
# No wrappers for callers in Python, and no counting of references: arrays here own nothing.
OPTIONS: dict[str, Any] = {
    "error_model": "numpy", "_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True
}  # fmt: skip
# What numba made of the loops, by name.
LOOPS: dict[str, Any] = {}

# Declared as what the decorated function is, not as what it becomes.
intrinsic: Any = extending.intrinsic
populate_array: Any = arrayobj.populate_array


def _loop(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` for the arguments that `fedaq.codec.kernels` passes."""
    arguments = (NUMBERS.get(kind, types.voidptr) for kind in SIGNATURES[function.__name__])
    loop = njit([types.void(*arguments)], **OPTIONS)(function)
    [LOOPS[function.__name__]] = loop.overloads.values()
    return function


def _part(function: Callable[..., Any]) -> Any:
    """Let loops call `function`."""
    return njit(**OPTIONS)(function)


@intrinsic(prefer_literal=True)
def _stack(typing_context: Any, count: Any, kind: Any) -> Any:
    """Reserve room for a constant number of values until the loop returns."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        block = ir.ArrayType(context.get_data_type(kind.dtype), count.literal_value)
        with builder.goto_entry_block():
            place = builder.alloca(block)
        place.align = 64
        return builder.bitcast(place, cgutils.voidptr_t)

    return types.voidptr(count, kind), generate


@intrinsic
def _array(typing_context: Any, pointer: Any, size: Any, kind: Any) -> Any:
    """Return an array over memory that others own; a `numba.carray` that raises nothing."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.return_type)(context, builder)
        bytes_each = context.get_constant(
            types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype))
        )
        populate_array(
            array,
            data=builder.bitcast(args[0], array.data.type),
            shape=[args[1]],
            strides=[bytes_each],
            itemsize=bytes_each,
            meminfo=None,
        )
        return array._getvalue()

    return types.Array(kind.dtype, 1, "C")(types.voidptr, types.intp, kind), generate


@intrinsic
def _load_word(typing_context: Any, data: Any, offset: Any) -> Any:
    """Read 64 bits at any byte of a uint8 array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        word = context.get_value_type(types.uint64).as_pointer()
        pointer = builder.bitcast(builder.gep(array.data, [args[1]]), word)
        return builder.load(pointer, align=1)

    return types.uint64(data, types.uint64), generate


@intrinsic
def _store_word(typing_context: Any, data: Any, offset: Any, value: Any) -> Any:
    """Write 64 bits at any byte of a uint8 array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        word = context.get_value_type(types.uint64).as_pointer()
        pointer = builder.bitcast(builder.gep(array.data, [args[1]]), word)
        builder.store(args[2], pointer, align=1)
        return context.get_dummy_value()

    return types.void(data, types.uint64, types.uint64), generate


@intrinsic
def _one_by_one(typing_context: Any, data: Any) -> Any:
    """Return an array as it is, by a call that has no form for vectors, so that no loop gets any.

    Vectors gather from a table at half the speed of single reads. Of all calls that do nothing,
    this one is not removed before that is decided, and does not keep a loop from being unrolled.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        kind = ir.FunctionType(array.data.type, [array.data.type])
        same = builder.module.declare_intrinsic("llvm.launder.invariant.group.p0", (), kind)
        array.data = builder.call(same, [array.data])
        return array._getvalue()

    return data(data), generate


@intrinsic
def _either(typing_context: Any, flag: Any, one: Any, other: Any) -> Any:
    """Return `one` if `flag` is not 0, else `other`, where LLVM would make a branch of an `if`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        flag, one, other = args
        return builder.select(builder.icmp_unsigned("!=", flag, flag.type(0)), one, other)

    return one(flag, one, one), generate


@_part
def _ordered(pattern: Any) -> Any:
    """Map the bits of a float32 to an int32 that sorts as the float does; its own inverse."""
    return I32(pattern ^ I32(I32(pattern >> I32(31)) & I32(2**31 - 1)))


@_part
def _least(a: Any, b: Any) -> Any:
    return a if a < b else b


@_part
def _greatest(a: Any, b: Any) -> Any:
    return a if a > b else b


@_loop
def statistics(values: Any, size: Any, ends: Any, sums: Any) -> None:
    """Value i is added to lane ``i % LANES``, then the lanes are added in their order.

    Integers are compared because a minimum of floats, with its rules for NaN, is not
    compiled to vector instructions. A square of a float32 is exact in float64.
    """
    floats = _array(values, size, F32)
    patterns = _array(values, size, I32)
    lows = _array(_stack(LANES, I32), LANES, I32)
    highs = _array(_stack(LANES, I32), LANES, I32)
    totals = _array(_stack(LANES, F64), LANES, F64)
    squares = _array(_stack(LANES, F64), LANES, F64)
    magnitudes = _array(_stack(LANES, F64), LANES, F64)
    for lane in range(LANES):
        lows[lane] = I32(2**31 - 1)
        highs[lane] = I32(-(2**31))
        totals[lane] = F64(0)
        squares[lane] = F64(0)
        magnitudes[lane] = F64(0)
    whole = size & -LANES
    for start in range(0, whole, LANES):
        for lane in range(LANES):
            pattern = _ordered(patterns[start + lane])
            lows[lane] = _least(lows[lane], pattern)
            highs[lane] = _greatest(highs[lane], pattern)
            value = F64(floats[start + lane])
            totals[lane] += value
            squares[lane] += value * value
            magnitudes[lane] += abs(value)
    for i in range(whole, size):
        pattern = _ordered(patterns[i])
        lows[i - whole] = _least(lows[i - whole], pattern)
        highs[i - whole] = _greatest(highs[i - whole], pattern)
        value = F64(floats[i])
        totals[i - whole] += value
        squares[i - whole] += value * value
        magnitudes[i - whole] += abs(value)
    for lane in range(1, LANES):
        lows[0] = _least(lows[0], lows[lane])
        highs[0] = _greatest(highs[0], highs[lane])
        totals[0] += totals[lane]
        squares[0] += squares[lane]
        magnitudes[0] += magnitudes[lane]
    both = _array(ends, 2, I32)
    both[0] = _ordered(lows[0])
    both[1] = _ordered(highs[0])
    result = _array(sums, 3, F64)
    result[0] = totals[0]
    result[1] = squares[0]
    result[2] = magnitudes[0]


@_part
def _hash(x: Any) -> Any:
    """Mix 32 bits: ``lowbias32`` of C. Wellons, "Prospecting for hash functions" (2018)."""
    x = U32(x ^ U32(x >> U32(16)))
    x = U32(x * U32(0x7FEB352D))
    x = U32(x ^ U32(x >> U32(15)))
    x = U32(x * U32(0x846CA68B))
    return U32(x ^ U32(x >> U32(16)))


@_part
def _pack(codes: Any, words: Any, bits: Any, scratch: Any, out: Any) -> None:
    """Write the top `bits` bits of each 16-bit code to `out` without gaps.

    Four codes are closed up inside a 64-bit word, in two steps, and two such words then
    make the ``8 * bits`` bits of a group. `words` holds the codes of whole groups.
    """
    width = U64(bits)
    half = U64(4) * width
    gap = U64(32) - width - width
    pair = ALL_ONES >> (U64(64) - width - width)
    even = (ALL_ONES >> (U64(64) - width)) * EVERY_32_BITS
    for i in range(U64(words.size)):
        word = words[i]
        word = ((word >> (U64(16) - width)) & even) | ((word >> gap) & (even << width))
        words[i] = (word & pair) | ((word >> gap) & (pair << width << width))
    for i in range(U64(words.size >> 1)):
        first = words[i + i]
        second = words[i + i + U64(1)]
        # At 16 bits `half` is 64, too much for one shift.
        _store_word(scratch, i * width, first | second << U64(1) << (half - U64(1)))
        _store_word(scratch, i * width + U64(8), second >> (U64(64) - half))
    for i in range(out.size):
        out[i] = scratch[i]


@_part
def _unpack(data: Any, bits: Any, scratch: Any, words: Any) -> None:
    """Read 16-bit codes from `data`: `_pack` backwards, but for codes in the low bits."""
    for i in range(data.size):
        scratch[i] = data[i]
    width = U64(bits)
    half = U64(4) * width
    gap = U64(32) - width - width
    pair = ALL_ONES >> (U64(64) - width - width)
    even = (ALL_ONES >> (U64(64) - width)) * EVERY_32_BITS
    fours = ALL_ONES >> (U64(64) - half)
    for i in range(U64(words.size >> 1)):
        first = _load_word(scratch, i * width)
        second = _load_word(scratch, i * width + U64(8))
        words[i + i] = first & fours
        words[i + i + U64(1)] = (
            first >> U64(1) >> (half - U64(1)) | second << (U64(64) - half)
        ) & fours
    for i in range(U64(words.size)):
        word = words[i]
        word = (word & pair) | ((word << gap) & (pair << U64(32)))
        words[i] = (word & even) | ((word << (U64(16) - width)) & (even << U64(16)))


@_loop
def quantize_pack(
    values: Any,
    size: Any,
    first: Any,
    lo: Any,
    inverse_step: Any,
    bits: Any,
    nearest: Any,
    key0: Any,
    key1: Any,
    out: Any,
) -> None:
    """The position ``(value - lo) / step`` becomes a fixed-point number of 31 bits.

    It has ``31 - bits`` fractional bits; a uniform integer as long as the fraction is added,
    and the whole part is the code. So the code is unbiased but for the float32 arithmetic of
    the position: to 2**-22 of the range at most. With `nearest`, half of a whole is added
    instead.

    Random numbers are the hash of a Weyl sequence that starts from one word of the key
    and is combined with the other: number i depends on the key and i alone.
    """
    floats = _array(values, size, F32)
    packed = _array(out, (size * bits + 7) >> 3, U8)
    place = _stack(PACK_BLOCK, U16)
    codes = _array(place, PACK_BLOCK, U16)
    words = _array(place, PACK_BLOCK // 4, U64)
    scratch = _array(_stack(PACK_SCRATCH, U8), PACK_SCRATCH, U8)
    unit = F32(1 << (31 - bits))
    fraction = U32(0) if nearest else U32((1 << (31 - bits)) - 1)
    half = U32(1 << (30 - bits)) if nearest else U32(0)
    bottom = F32(0)
    top = F32(F32((1 << bits) - 1) * unit)
    for start in range(0, size, PACK_BLOCK):
        block = floats[start : start + PACK_BLOCK]
        counter = U32(U32(U32(first + U32(start)) * WEYL) + key0)
        for i in range(block.size):
            dither = U32(U32(_hash(U32(counter ^ key1)) & fraction) + half)
            scaled = F32(F32((block[i] - lo) * inverse_step) * unit)
            scaled = scaled if scaled > bottom else bottom
            scaled = scaled if scaled < top else top
            position = U32(U32(I32(scaled)) + dither)
            codes[i] = U16(U32(position >> U32(15)))
            counter = U32(counter + WEYL)
        padded = (block.size + GROUP - 1) & -GROUP
        for i in range(block.size, padded):
            codes[i] = U16(0)
        end = start + block.size
        part = packed[start * bits >> 3 : (end * bits + 7) >> 3]
        _pack(codes, words[: padded >> 2], bits, scratch, part)


@_loop
def repack(data: Any, bits: Any, width: Any, count: Any, out: Any) -> None:
    """Unpack and pack again."""
    narrow = _array(data, (count * bits + 7) >> 3, U8)
    packed = _array(out, (count * width + 7) >> 3, U8)
    place = _stack(UNPACK_BLOCK, U16)
    codes = _array(place, UNPACK_BLOCK, U16)
    words = _array(place, UNPACK_BLOCK // 4, U64)
    scratch = _array(_stack(UNPACK_SCRATCH, U8), UNPACK_SCRATCH, U8)
    for start in range(0, count, UNPACK_BLOCK):
        end = start + UNPACK_BLOCK if start + UNPACK_BLOCK < count else count
        padded = (end - start + GROUP - 1) & -GROUP
        part = narrow[start * bits >> 3 : (end * bits + 7) >> 3]
        _unpack(part, bits, scratch, words[: padded >> 2])
        for i in range(padded):
            codes[i] = U16(codes[i] << U16(16 - width))
        for i in range(end - start, padded):
            codes[i] = U16(0)
        part = packed[start * width >> 3 : (end * width + 7) >> 3]
        _pack(codes, words[: padded >> 2], width, scratch, part)


@_part
def _value(lo: Any, step: Any, code: Any) -> Any:
    """Return the value of a code; the product of two float32 values is exact in float64."""
    return F32(lo + step * F64(I32(code)))


@_part
def _look_up_pairs(data: Any, bits: Any, table: Any, words: Any) -> None:
    """Write two float32 values, a word, for every two codes of whole groups in `data`."""
    width = U64(bits)
    two = width + width
    mask = (U64(1) << two) - U64(1)
    for group in range(U64(words.size >> 2)):
        word = _load_word(_one_by_one(data), group * width)
        place = group << U64(2)
        words[place] = table[word & mask]
        words[place + U64(1)] = table[(word >> two) & mask]
        words[place + U64(2)] = table[(word >> two >> two) & mask]
        words[place + U64(3)] = table[(word >> two >> two >> two) & mask]


@_part
def _groups_within(size: Any, bits: Any) -> Any:
    """Return how many whole groups of a slice can be read a word at a time."""
    return max(I64(0), min(size >> 3, (((size * bits + 7) >> 3) - 8) // bits + 1))


@_part
def _tail(data: Any, begin: Any, scratch: Any) -> None:
    """Copy the bytes from `begin` on, after which `scratch` may be read beyond them."""
    for i in range(begin, data.size):
        scratch[i - begin] = data[i]


@_part
def _dequantize_pairs(codes: Any, bits: Any, lo: Any, step: Any, out: Any, size: Any) -> None:
    """Look up the values of two codes at once, which come as one word."""
    place = _stack(PAIRS, U64)
    table = _array(place, PAIRS, U64)
    halves = _array(place, 2 * PAIRS, F32)
    for pair in range(I64(1) << bits << bits):
        halves[2 * pair] = _value(lo, step, pair & ((I64(1) << bits) - I64(1)))
        halves[2 * pair + 1] = _value(lo, step, pair >> bits)
    groups = _groups_within(size, bits)
    _look_up_pairs(codes, bits, table, _array(out, groups << 2, U64))

    scratch = _array(_stack(TAIL, U8), TAIL, U8)
    place = _stack(TAIL, F32)
    last = _array(place, TAIL, F32)
    _tail(codes, groups * bits, scratch)
    rest = size - groups * GROUP
    _look_up_pairs(scratch, bits, table, _array(place, ((rest + 7) >> 3) << 2, U64))
    values = _array(out, size, F32)
    for i in range(rest):
        values[size - rest + i] = last[i]


@_part
def _dequantize_blocks(codes: Any, bits: Any, lo: Any, step: Any, values: Any) -> None:
    place = _stack(UNPACK_BLOCK, U16)
    wide = _array(place, UNPACK_BLOCK, U16)
    words = _array(place, UNPACK_BLOCK // 4, U64)
    scratch = _array(_stack(UNPACK_SCRATCH, U8), UNPACK_SCRATCH, U8)
    for start in range(0, values.size, UNPACK_BLOCK):
        block = values[start : start + UNPACK_BLOCK]
        end = start + block.size
        padded = (block.size + GROUP - 1) & -GROUP
        part = codes[start * bits >> 3 : (end * bits + 7) >> 3]
        _unpack(part, bits, scratch, words[: padded >> 2])
        for i in range(block.size):
            block[i] = _value(lo, step, wide[i])


@_loop
def unpack_dequantize(data: Any, bits: Any, lo: Any, step: Any, out: Any, size: Any) -> None:
    """Values come from `_value`, at whatever width."""
    codes = _array(data, (size * bits + 7) >> 3, U8)
    if bits <= PAIR_BITS:
        _dequantize_pairs(codes, bits, lo, step, out, size)
    else:
        _dequantize_blocks(codes, bits, lo, step, _array(out, size, F32))


@_part
def _term(origin: Any, slope: Any, half: Any, shift: Any, code: Any) -> Any:
    """Return ``origin + round(slope * code / 2**shift)``."""
    return origin + ((slope * I64(code) + half) >> shift)


@_part
def _add_looked_up(data: Any, bits: Any, table: Any, total: Any) -> None:
    """Add what the table holds for each code of whole groups in `data`."""
    width = U64(bits)
    mask = (U64(1) << width) - U64(1)
    for group in range(U64(total.size >> 3)):
        word = _load_word(_one_by_one(data), group * width)
        for i in range(U64(GROUP)):
            total[group * U64(GROUP) + i] += table[(word >> (i * width)) & mask]


@_part
def _accumulate_looked_up(
    codes: Any, bits: Any, origin: Any, slope: Any, half: Any, shift: Any, total: Any
) -> None:
    table = _array(_stack(SINGLES, I64), SINGLES, I64)
    for code in range(I64(1) << bits):
        table[code] = _term(origin, slope, half, shift, code)
    groups = _groups_within(total.size, bits)
    _add_looked_up(codes, bits, table, total[: groups << 3])

    scratch = _array(_stack(TAIL, U8), TAIL, U8)
    last = _array(_stack(TAIL, I64), TAIL, I64)
    rest = total[groups << 3 :]
    for i in range(rest.size):
        last[i] = rest[i]
    _tail(codes, groups * bits, scratch)
    _add_looked_up(scratch, bits, table, last[: (rest.size + 7) & -GROUP])
    for i in range(rest.size):
        rest[i] = last[i]


@_part
def _accumulate_blocks(
    codes: Any, bits: Any, origin: Any, slope: Any, half: Any, shift: Any, total: Any
) -> None:
    place = _stack(UNPACK_BLOCK, U16)
    wide = _array(place, UNPACK_BLOCK, U16)
    words = _array(place, UNPACK_BLOCK // 4, U64)
    scratch = _array(_stack(UNPACK_SCRATCH, U8), UNPACK_SCRATCH, U8)
    for start in range(0, total.size, UNPACK_BLOCK):
        block = total[start : start + UNPACK_BLOCK]
        end = start + block.size
        padded = (block.size + GROUP - 1) & -GROUP
        part = codes[start * bits >> 3 : (end * bits + 7) >> 3]
        _unpack(part, bits, scratch, words[: padded >> 2])
        for i in range(block.size):
            block[i] += _term(origin, slope, half, shift, wide[i])


@_loop
def unpack_accumulate(
    data: Any,
    bits: Any,
    origin: Any,
    slope: Any,
    shift: Any,
    sign: Any,
    total: Any,
    size: Any,
) -> None:
    """Terms come from `_term`, at whatever width."""
    half = (I64(1) << shift) >> I64(1)
    if sign < 0:
        # The exact negative: -(x >> shift) is (~x >> shift) + 1.
        origin, slope, half = I64(1) - origin, -slope, ~half
    codes = _array(data, (size * bits + 7) >> 3, U8)
    sums = _array(total, size, I64)
    if bits <= SINGLE_BITS:
        _accumulate_looked_up(codes, bits, origin, slope, half, shift, sums)
    else:
        _accumulate_blocks(codes, bits, origin, slope, half, shift, sums)


@_loop
def code_sums(data: Any, bits: Any, size: Any, sums: Any) -> None:
    """Integers, whose sum has no order, so that the processor's vectors can form it."""
    codes = _array(data, (size * bits + 7) >> 3, U8)
    place = _stack(UNPACK_BLOCK, U16)
    wide = _array(place, UNPACK_BLOCK, U16)
    words = _array(place, UNPACK_BLOCK // 4, U64)
    scratch = _array(_stack(UNPACK_SCRATCH, U8), UNPACK_SCRATCH, U8)
    total = U64(0)
    squares = U64(0)
    for start in range(0, size, UNPACK_BLOCK):
        end = start + UNPACK_BLOCK if start + UNPACK_BLOCK < size else size
        padded = (end - start + GROUP - 1) & -GROUP
        part = codes[start * bits >> 3 : (end * bits + 7) >> 3]
        _unpack(part, bits, scratch, words[: padded >> 2])
        for i in range(end - start):
            code = U64(wide[i])
            total += code
            squares += code * code
    found = _array(sums, 2, I64)
    found[0] = I64(total)
    found[1] = I64(squares)


@_loop
def accumulate_raw(values: Any, factor: Any, sign: Any, total: Any, size: Any) -> None:
    """Round to even, as IEEE 754 does when it is not told otherwise."""
    floats = _array(values, size, F32)
    sums = _array(total, size, I64)
    for i in range(size):
        sums[i] += sign * I64(np.rint(F64(floats[i]) * factor))


@_loop
def add_scaled(base: Any, total: Any, scale: Any, out: Any, size: Any) -> None:
    """Round the product to float32 before it is added."""
    before = _array(base, size, F32)
    sums = _array(total, size, I64)
    after = _array(out, size, F32)
    for i in range(size):
        after[i] = before[i] + F32(F64(sums[i]) * scale)


@_loop
def histogram(symbols: Any, size: Any, counts: Any) -> None:
    """Count one by one."""
    data = _array(symbols, size, U8)
    found = _array(counts, 256, I64)
    for i in range(size):
        found[data[i]] += 1


@_loop
def split_mode(
    symbols: Any, size: Any, mode: Any, flags: Any, others: Any, others_found: Any
) -> None:
    """Each byte is written to `others`, and overwritten by the next if it was the mode.

    A branch would be mispredicted too often. Eight at a time, because a loop of a known number
    of steps is unrolled, which doubles the speed.
    """
    data = _array(symbols, size, U8)
    bits = _array(flags, (size >> 3) + 1, U8)
    rest = _array(others, size + 1, U8)
    usual = U8(mode)
    count = U64(0)
    length = U64(size)
    whole = length & ~U64(7)
    for start in range(U64(0), whole, U64(8)):
        group = U64(0)
        for bit in range(8):
            symbol = data[start + U64(bit)]
            other = U64(symbol != usual)
            rest[count] = symbol
            count += other
            group |= other << U64(bit)
        bits[start >> U64(3)] = U8(group)
    group = U64(1) << (length - whole)
    for i in range(whole, length):
        symbol = data[i]
        other = U64(symbol != usual)
        rest[count] = symbol
        count += other
        group |= other << (i - whole)
    bits[whole >> U64(3)] = U8(group)
    _array(others_found, 1, I64)[0] = I64(count)


@_loop
def merge_mode(flags: Any, mode: Any, others: Any, out: Any, size: Any) -> None:
    """Read the next of `others` for every byte, so that no branch decides on the read."""
    bits = _array(flags, (size >> 3) + 1, U8)
    rest = _array(others, size + 1, U8)
    symbols = _array(out, size, U8)
    usual = U8(mode)
    taken = U64(0)
    length = U64(size)
    whole = length & ~U64(7)
    for place in range(length >> U64(3)):
        group = U64(bits[place])
        for bit in range(8):
            other = (group >> U64(bit)) & U64(1)
            symbol = rest[taken]
            symbols[(place << U64(3)) + U64(bit)] = _either(other, symbol, usual)
            taken += other
    group = U64(bits[whole >> U64(3)])
    for i in range(whole, length):
        other = (group >> (i - whole)) & U64(1)
        symbol = rest[taken]
        symbols[i] = _either(other, symbol, usual)
        taken += other
