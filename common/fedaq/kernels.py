"""Compiled inner loops of the codec; nothing else calls numba.

All loops release the GIL and take any slice that starts at a multiple of `GROUP`
values, so a tensor can be coded in pieces, by any thread, with the same bytes. They
work through blocks whose codes stay in the cache, 16 bits a code, and touch the packed
bytes 64 bits at a time, in the order of a little-endian processor.

The same input gives the same bytes on every processor: codes come from single IEEE
float32 operations (subtract, multiply, compare, truncate; no ``a * b + c``) and integer
arithmetic, and where a product is added to something it is exact, so that fusing the
two changes nothing. No mathematical library is called and fast-math is off. numba
widens 32-bit integers to 64 bits unless each step is cast back, which would halve the
speed.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import extending, njit, types

GROUP = 8
# Values whose codes are held at once. Of values that come from memory, 4,096 would be
# quantized a third slower and 1,024 dequantized a sixth slower.
PACK_BLOCK = 1024
UNPACK_BLOCK = 4096

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
# The odd integer nearest to 2**32 over the golden ratio.
WEYL = U32(0x9E3779B9)
ALL_ONES = U64(2**64 - 1)
EVERY_32_BITS = U64(2**32 + 1)


# Declared as what the decorated function is, not as what it becomes.
intrinsic: Any = extending.intrinsic


def _kernel(function: Callable[..., Any]) -> Any:
    """Compile `function` when it is first called, and keep the result on disk if possible."""
    try:
        return njit(nogil=True, cache=True)(function)
    except RuntimeError:  # numba found no folder that it may write to
        return njit(nogil=True)(function)


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


@njit(inline="always")
def _ordered(pattern: Any) -> Any:
    """Map the bits of a float32 to an int32 that sorts as the float does; its own inverse."""
    return I32(pattern ^ I32(I32(pattern >> I32(31)) & I32(2**31 - 1)))


@_kernel
def value_range(values: Any) -> Any:
    """Return ``(min, max)`` of a non-empty float32 array.

    If any value is NaN or infinite, so is one of the two. Integers are compared because
    a minimum of floats, with its rules for NaN, is not compiled to vector instructions.
    """
    patterns = values.view(np.int32)
    lo = _ordered(patterns[0])
    hi = lo
    for i in range(patterns.size):
        pattern = _ordered(patterns[i])
        lo = min(lo, pattern)
        hi = max(hi, pattern)
    ends = np.empty(2, np.int32)
    ends[0] = _ordered(lo)
    ends[1] = _ordered(hi)
    floats = ends.view(np.float32)
    return floats[0], floats[1]


@njit(inline="always")
def _hash(x: Any) -> Any:
    """Mix 32 bits: ``lowbias32`` of C. Wellons, "Prospecting for hash functions" (2018)."""
    x = U32(x ^ U32(x >> U32(16)))
    x = U32(x * U32(0x7FEB352D))
    x = U32(x ^ U32(x >> U32(15)))
    x = U32(x * U32(0x846CA68B))
    return U32(x ^ U32(x >> U32(16)))


@njit(inline="always")
def _pack(codes: Any, bits: Any, scratch: Any, out: Any) -> None:
    """Write the top `bits` bits of each 16-bit code to `out` without gaps.

    Four codes are closed up inside a 64-bit word, in two steps, and two such words then
    make the ``8 * bits`` bits of a group. `codes` holds whole groups.
    """
    words = codes.view(np.uint64)
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


@njit(inline="always")
def _unpack(data: Any, bits: Any, scratch: Any, codes: Any) -> None:
    """Read 16-bit codes from `data`: `_pack` backwards, but for codes in the low bits."""
    for i in range(data.size):
        scratch[i] = data[i]
    words = codes.view(np.uint64)
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


@_kernel
def quantize_pack(
    values: Any,
    first: Any,
    lo: Any,
    inverse_step: Any,
    bits: Any,
    nearest: Any,
    key0: Any,
    key1: Any,
    out: Any,
) -> None:
    """Round `values`, at random or to the nearest, to codes of `bits` bits, packed into `out`.

    The position ``(value - lo) / step`` becomes a fixed-point number with ``31 - bits``
    fractional bits; a uniform integer as long as the fraction is added, and the whole
    part is the code. So the code is unbiased but for the float32 arithmetic of the
    position: to 2**-22 of the range at most. With `nearest`, half of a whole is added
    instead.

    Random numbers are the hash of a Weyl sequence that starts from one word of the key
    and is combined with the other: number i depends on the key and i alone.

    Parameters
    ----------
    values : float32, shape (n,)
        Those outside the range get the lowest or the highest code.
    first : uint32
        Index in the tensor of the first value.
    lo, inverse_step : float32
        Value of code 0, and one over the step between codes; 0 if all codes are to be 0.
    bits : int64
        1 to 16.
    nearest : bool
    key0, key1 : uint32
    out : uint8, shape (ceil(n * bits / 8),)
    """
    codes = np.empty(PACK_BLOCK, np.uint16)
    scratch = np.empty(2 * PACK_BLOCK + OVERHANG, np.uint8)
    unit = F32(1 << (31 - bits))
    fraction = U32(0) if nearest else U32((1 << (31 - bits)) - 1)
    half = U32(1 << (30 - bits)) if nearest else U32(0)
    bottom = F32(0)
    top = F32(F32((1 << bits) - 1) * unit)
    for start in range(0, values.size, PACK_BLOCK):
        block = values[start : start + PACK_BLOCK]
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
        codes[block.size : padded] = 0
        end = start + block.size
        _pack(codes[:padded], bits, scratch, out[start * bits >> 3 : (end * bits + 7) >> 3])


@_kernel
def repack(data: Any, bits: Any, width: Any, codes: Any, out: Any) -> None:
    """Pack codes that lie `bits` bits apart anew, `width` bits apart.

    Parameters
    ----------
    data : uint8, shape (ceil(n * bits / 8),)
    bits, width : int64
        1 to 16; codes fit in both.
    codes : int64
        ``n``.
    out : uint8, shape (ceil(n * width / 8),)
    """
    block = np.empty(UNPACK_BLOCK, np.uint16)
    scratch = np.empty(2 * UNPACK_BLOCK + OVERHANG, np.uint8)
    lift = U16(16 - width)
    for start in range(0, codes, UNPACK_BLOCK):
        end = min(start + UNPACK_BLOCK, codes)
        padded = (end - start + GROUP - 1) & -GROUP
        _unpack(data[start * bits >> 3 : (end * bits + 7) >> 3], bits, scratch, block[:padded])
        for i in range(padded):
            block[i] = U16(block[i] << lift)
        block[end - start : padded] = 0
        _pack(block[:padded], width, scratch, out[start * width >> 3 : (end * width + 7) >> 3])


@_kernel
def unpack_dequantize(data: Any, bits: Any, lo: Any, step: Any, out: Any) -> None:
    """Write ``lo + step * code`` for each packed code into the float32 array `out`.

    `lo` and `step` are float64 that hold float32 values: the product is exact.
    """
    codes = np.empty(UNPACK_BLOCK, np.uint16)
    scratch = np.empty(2 * UNPACK_BLOCK + OVERHANG, np.uint8)
    for start in range(0, out.size, UNPACK_BLOCK):
        block = out[start : start + UNPACK_BLOCK]
        end = start + block.size
        padded = (block.size + GROUP - 1) & -GROUP
        _unpack(data[start * bits >> 3 : (end * bits + 7) >> 3], bits, scratch, codes[:padded])
        for i in range(block.size):
            block[i] = F32(lo + step * F64(I32(codes[i])))


@_kernel
def unpack_accumulate(
    data: Any, bits: Any, origin: Any, slope: Any, shift: Any, sign: Any, total: Any
) -> None:
    """Add ``sign * (origin + round(slope * code / 2**shift))`` to the int64 `total`.

    Halves are rounded up. `sign` is 1 or -1.
    """
    codes = np.empty(UNPACK_BLOCK, np.uint16)
    scratch = np.empty(2 * UNPACK_BLOCK + OVERHANG, np.uint8)
    half = (I64(1) << shift) >> I64(1)
    if sign < 0:
        # The exact negative: -(x >> shift) is (~x >> shift) + 1.
        origin, slope, half = I64(1) - origin, -slope, ~half
    for start in range(0, total.size, UNPACK_BLOCK):
        block = total[start : start + UNPACK_BLOCK]
        end = start + block.size
        padded = (block.size + GROUP - 1) & -GROUP
        _unpack(data[start * bits >> 3 : (end * bits + 7) >> 3], bits, scratch, codes[:padded])
        for i in range(block.size):
            block[i] += origin + ((slope * I64(codes[i]) + half) >> shift)


@_kernel
def accumulate_raw(values: Any, factor: Any, sign: Any, total: Any) -> None:
    """Add ``sign * round(factor * value)`` to the int64 `total`; values are finite."""
    for i in range(total.size):
        total[i] += sign * np.int64(np.rint(np.float64(values[i]) * factor))


@_kernel
def add_scaled(base: Any, total: Any, scale: Any, out: Any) -> None:
    """Write ``base + float32(total * scale)`` into the float32 array `out`."""
    for i in range(total.size):
        out[i] = base[i] + np.float32(np.float64(total[i]) * scale)


@_kernel
def moments(values: Any) -> Any:
    """Return the sums of a float32 array, its squares and its magnitudes, in order in float64.

    A square of a float32 is exact in float64.
    """
    total = F64(0)
    squares = F64(0)
    magnitudes = F64(0)
    for i in range(values.size):
        value = F64(values[i])
        total += value
        squares += value * value
        magnitudes += abs(value)
    return total, squares, magnitudes


@_kernel
def histogram(symbols: Any) -> Any:
    """Return how often each byte occurs in a uint8 array: int64, shape (256,)."""
    counts = np.zeros(256, np.int64)
    for i in range(symbols.size):
        counts[symbols[i]] += 1
    return counts


@_kernel
def split_mode(symbols: Any, mode: Any, flags: Any, others: Any) -> Any:
    """Split bytes in two streams: is it another one than `mode`, and if so which.

    Each is written to `others`, and overwritten by the next if it was the mode: a branch
    would be mispredicted too often.

    Parameters
    ----------
    symbols : uint8, shape (n,)
    mode : uint8
    flags : uint8, shape (n // 8 + 1,)
        Receives one bit a byte, lowest first: 1 for another one. One more 1 ends them, so
        that their number is known.
    others : uint8, shape (n + 1,)
        Receives the others, and rubbish after them.

    Returns
    -------
    int64
        Number of others.
    """
    count = U64(0)
    size = U64(symbols.size)
    whole = size & ~U64(7)
    # Eight at a time: a loop of a known number of steps is unrolled, which doubles the speed.
    for start in range(U64(0), whole, U64(8)):
        group = U64(0)
        for bit in range(8):
            symbol = symbols[start + U64(bit)]
            other = U64(symbol != mode)
            others[count] = symbol
            count += other
            group |= other << U64(bit)
        flags[start >> U64(3)] = U8(group)
    group = U64(1) << (size - whole)
    for i in range(whole, size):
        symbol = symbols[i]
        other = U64(symbol != mode)
        others[count] = symbol
        count += other
        group |= other << (i - whole)
    flags[whole >> U64(3)] = U8(group)
    return I64(count)


@_kernel
def merge_mode(flags: Any, mode: Any, others: Any, out: Any) -> None:
    """Put the bytes together again: `split_mode` backwards.

    Parameters
    ----------
    flags : uint8, shape (n // 8 + 1,)
    mode : uint8
    others : uint8, shape (m + 1,)
        One for each 1 among the first n flags, m in all, and one that is read, so that no
        branch decides on the read, but not used.
    out : uint8, shape (n,)
    """
    taken = U64(0)
    size = U64(out.size)
    whole = size & ~U64(7)
    for start in range(U64(0), whole, U64(8)):
        group = U64(flags[start >> U64(3)])
        for bit in range(8):
            other = (group >> U64(bit)) & U64(1)
            symbol = others[taken]
            out[start + U64(bit)] = symbol if other else mode
            taken += other
    group = U64(flags[whole >> U64(3)])
    for i in range(whole, size):
        other = (group >> (i - whole)) & U64(1)
        symbol = others[taken]
        out[i] = symbol if other else mode
        taken += other
