"""Compiled inner loops of the codec; nothing else calls numba.

All loops release the GIL and take any slice whose first value is a multiple of
`GROUP`, so a tensor can be coded in pieces, by any thread, with the same bytes.

Integer types are cast at every step because numba otherwise widens 32-bit
arithmetic to 64 bits. No expression has the shape ``a * b + c`` in a precision
in which the product would round, so a fused multiply-add cannot change a code.
"""

from typing import Any

import numpy as np
from numba import njit

GROUP = 8
BLOCK = 4096
U32 = np.uint32
U64 = np.uint64


@njit(nogil=True, cache=True)
def value_range(values: Any) -> Any:
    """Return ``(min, max, finite)`` of a non-empty float32 array."""
    lo = values[0]
    hi = values[0]
    bad = np.int32(0)
    for i in range(values.size):
        value = values[i]
        lo = min(lo, value)
        hi = max(hi, value)
        bad |= np.int32(not (np.float32(value - value) == np.float32(0)))
    return lo, hi, bad == 0


@njit(inline="always")
def _uniform(index: Any, key0: Any, key1: Any) -> Any:
    x = U32(index ^ key0)
    x = U32(x ^ U32(x >> U32(16)))
    x = U32(x * U32(0x7FEB352D))
    x = U32(x ^ key1)
    x = U32(x ^ U32(x >> U32(15)))
    x = U32(x * U32(0x846CA68B))
    x = U32(x ^ U32(x >> U32(16)))
    return np.float32(np.int32(U32(x >> U32(8)))) * np.float32(2.0**-24)


@njit(nogil=True, cache=True)
def quantize_pack(
    values: Any,
    first: Any,
    lo: Any,
    inverse_step: Any,
    levels: Any,
    bits: Any,
    key0: Any,
    key1: Any,
    out: Any,
) -> None:
    """Stochastically round `values` to codes of `bits` bits, packed into `out`."""
    width = U64(bits)
    codes = np.empty(BLOCK, np.uint16)
    position = 0
    for start in range(0, values.size, BLOCK):
        count = min(BLOCK, values.size - start)
        for i in range(count):
            u = _uniform(U32(first + U32(start + i)), key0, key1)
            t = np.float32((values[start + i] - lo) * inverse_step)
            whole = np.float32(np.floor(t))
            code = np.int32(whole) + np.int32(u < np.float32(t - whole))
            codes[i] = max(np.int32(0), min(code, levels))
        word = U64(0)
        filled = U64(0)
        for i in range(count):
            word |= U64(codes[i]) << filled
            filled += width
            while filled >= U64(8):
                out[position] = np.uint8(word)
                position += 1
                word >>= U64(8)
                filled -= U64(8)
        if filled > U64(0):
            out[position] = np.uint8(word)
            position += 1


@njit(nogil=True, cache=True)
def unpack(data: Any, bits: Any, codes: Any) -> None:
    """Read ``codes.size`` codes of `bits` bits from the start of `data`."""
    width = U64(bits)
    mask = U64((1 << bits) - 1)
    word = U64(0)
    filled = U64(0)
    position = 0
    for i in range(codes.size):
        while filled < width:
            word |= U64(data[position]) << filled
            position += 1
            filled += U64(8)
        codes[i] = np.uint16(word & mask)
        word >>= width
        filled -= width


@njit(nogil=True, cache=True)
def unpack_dequantize(data: Any, bits: Any, lo: Any, step: Any, out: Any) -> None:
    """Write ``lo + step * code`` for each packed code into the float32 array `out`.

    `lo` and `step` are float64 that hold float32 values: the product is exact.
    """
    codes = np.empty(BLOCK, np.uint16)
    for start in range(0, out.size, BLOCK):
        count = min(BLOCK, out.size - start)
        unpack(data[start * bits // 8 :], bits, codes[:count])
        for i in range(count):
            out[start + i] = np.float32(lo + step * np.float64(codes[i]))


@njit(nogil=True, cache=True)
def unpack_accumulate(
    data: Any, bits: Any, origin: Any, slope: Any, shift: Any, sign: Any, total: Any
) -> None:
    """Add ``sign * (origin + round(slope * code / 2**shift))`` to the int64 `total`."""
    codes = np.empty(BLOCK, np.uint16)
    half = np.int64((np.int64(1) << shift) >> np.int64(1))
    for start in range(0, total.size, BLOCK):
        count = min(BLOCK, total.size - start)
        unpack(data[start * bits // 8 :], bits, codes[:count])
        for i in range(count):
            value = origin + ((slope * np.int64(codes[i]) + half) >> shift)
            total[start + i] += sign * value


@njit(nogil=True, cache=True)
def accumulate_raw(values: Any, factor: Any, sign: Any, total: Any) -> None:
    """Add ``sign * round(factor * value)`` to the int64 `total`; values are finite."""
    for i in range(total.size):
        total[i] += sign * np.int64(np.rint(np.float64(values[i]) * factor))


@njit(nogil=True, cache=True)
def add_scaled(base: Any, total: Any, scale: Any, out: Any) -> None:
    """Write ``base + float32(total * scale)`` into the float32 array `out`."""
    for i in range(total.size):
        out[i] = base[i] + np.float32(np.float64(total[i]) * scale)
