"""The compiled inner loops of the codec, called with arrays.

They are written in C (``native/``; docs/explanation/native.md says how) and come with the
package as a shared library, in which each loop exists once for each level of vector instructions:
the best that the processor has is taken. ctypes calls them without Python's lock.

Arrays are contiguous, and those that are written to do not overlap the others. Packed codes lie
`width` bits apart, of which `bits` count; unless it is said, those are the same. ``n`` of them take
``ceil(n * width / 8)`` bytes, and a slice of a tensor starts at a multiple of `GROUP` values. A
buffer that is too short for what is asked makes a ValueError: the loops check it themselves.
"""

import ctypes
import sys
from collections.abc import Callable, Mapping
from ctypes import c_double, c_float, c_int32, c_int64, c_uint8, c_uint32
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedaq.errors import FedaqError

GROUP = 8
# Of `native/loops.h`.
VERSION = 2
LIBRARY = Path(__file__).with_name(
    "loops" + {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
)

Array = NDArray[Any]
Loop = Callable[..., None]


def _read(kind: type[np.generic]) -> Any:
    return np.ctypeslib.ndpointer(kind, ndim=1, flags=("C", "A"))


def _write(kind: type[np.generic]) -> Any:
    return np.ctypeslib.ndpointer(kind, ndim=1, flags=("C", "A", "W"))


_BYTES, _BYTES_OUT = _read(np.uint8), _write(np.uint8)
_FLOATS, _FLOATS_OUT = _read(np.float32), _write(np.float32)
_SUMS, _SUMS_OUT = _read(np.int64), _write(np.int64)
# Packed codes: data, its bytes, bits, width.
_CODES = (_BYTES, c_int64, c_int64, c_int64)
# The arguments of every loop, as `native/loops.h` declares them.
SIGNATURES: Mapping[str, tuple[Any, ...]] = {
    "statistics": (_FLOATS, c_int64, _FLOATS_OUT, _write(np.float64)),
    "quantize": (
        _FLOATS,
        c_int64,
        c_uint32,
        c_float,
        c_float,
        c_int64,
        c_int64,
        c_int64,
        c_uint32,
        c_uint32,
        _BYTES_OUT,
        c_int64,
    ),
    "dequantize": (*_CODES, c_double, c_double, c_int64, _FLOATS_OUT, c_int64),
    "accumulate": (*_CODES, c_int64, c_int64, c_int64, c_int64, _SUMS_OUT, c_int64),
    "code_sums": (*_CODES, c_int64, _SUMS_OUT),
    "repack": (*_CODES, c_int64, _BYTES_OUT, c_int64),
    "split_wide": (_read(np.uint16), c_int64, c_int64, _BYTES_OUT, _BYTES_OUT, c_int64),
    "join_wide": (_BYTES, _BYTES, c_int64, c_int64, _write(np.uint16), c_int64),
    "accumulate_raw": (_FLOATS, c_double, c_int64, _SUMS_OUT, c_int64),
    "add_scaled": (_FLOATS, _SUMS, c_double, _FLOATS_OUT, c_int64),
    "histogram": (_BYTES, c_int64, c_int64, _SUMS_OUT),
    "split_mode": (_BYTES, c_int64, c_uint8, _BYTES_OUT, _BYTES_OUT, _SUMS_OUT),
    "count_flags": (_BYTES, c_int64, c_int64, _SUMS_OUT),
    "dither_classes": (c_uint32, c_int64, c_uint32, c_uint32, _BYTES_OUT, c_int64),
    "past_classes": (_BYTES, c_int64, _BYTES_OUT),
    "remember": (*_CODES, c_int64, _BYTES_OUT, c_int64),
    "encode_given": (_BYTES, _BYTES, c_int64, c_int64, _BYTES_OUT, c_int64, _SUMS_OUT),
    "decode_given": (_BYTES, c_int64, _BYTES, c_int64, c_int64, _BYTES_OUT, c_int64),
    "merge_mode": (_BYTES, c_int64, c_uint8, _BYTES, c_int64, _BYTES_OUT, c_int64),
}


@dataclass(frozen=True)
class Statistics:
    """Least and greatest value, and sums of the values, their squares and magnitudes."""

    lo: float
    hi: float
    total: float
    squares: float
    magnitudes: float


def statistics(values: Array) -> Statistics:
    """Measure a non-empty float32 array.

    If any value is NaN or infinite, so is the least or the greatest. The sums are formed in
    float64, in an order that depends on nothing but the number of values.
    """
    ends, sums = np.empty(2, np.float32), np.empty(3, np.float64)
    _loops()["statistics"](values, values.size, ends, sums)
    return Statistics(*ends.tolist(), *sums.tolist())


def quantize_pack(
    values: Array,
    first: int,
    lo: float,
    inverse_step: float,
    bits: int,
    nearest: bool,
    key0: int,
    key1: int,
    out: Array,
    *,
    width: int | None = None,
    threshold: float = 0.5,
) -> None:
    """Round `values`, at random or to the nearest, to codes of `bits` bits, packed into `out`.

    Parameters
    ----------
    values : float32, shape (n,)
        Those outside the range get the lowest or the highest code.
    first : int
        Index in the tensor of the first value, 32 bits.
    lo, inverse_step : float
        Value of code 0, and one over the step between codes, both rounded to float32; the
        second is 0 if all codes are to be 0.
    bits : int
        1 to 16.
    nearest : bool
    key0, key1 : int
        32 bits each.
    out : uint8
        Receives the codes.
    width : int, optional
        Bits from one code to the next, up to 16.
    threshold : float
        With `nearest`: from which share of a step on, in 256ths, a value is rounded away from 0.
    """
    beyond = round(256 * threshold) if nearest else 0
    _loops()["quantize"](
        values, values.size, first, lo, inverse_step, bits, width or bits, beyond, key0, key1,
        out, out.size,
    )  # fmt: skip


def repack(data: Array, bits: int, width: int, codes: int, out: Array) -> None:
    """Pack codes that lie `bits` bits apart anew, `width` bits apart.

    Parameters
    ----------
    data : uint8, shape (ceil(n * bits / 8),)
    bits, width : int
        1 to 16; of each code, the lowest bits count that both have room for.
    codes : int
        ``n``.
    out : uint8, shape (ceil(n * width / 8),)
    """
    _loops()["repack"](data, data.size, bits, width, codes, out, out.size)


def unpack_dequantize(
    data: Array,
    bits: int,
    lo: float,
    step: float,
    out: Array,
    *,
    width: int | None = None,
    add: bool = False,
) -> None:
    """Write ``float32(lo + step * code)`` for each code to the float32 array `out`, or add it.

    `lo` and `step` are float32 values; the arithmetic is that of float64, in which the
    product is exact.
    """
    _loops()["dequantize"](data, data.size, bits, width or bits, lo, step, add, out, out.size)


def unpack_accumulate(
    data: Array,
    bits: int,
    origin: int,
    slope: int,
    shift: int,
    sign: int,
    total: Array,
    *,
    width: int | None = None,
) -> None:
    """Add ``sign * (origin + round(slope * code / 2**shift))`` to the int64 array `total`.

    Halves are rounded up. `sign` is 1 or -1.
    """
    _loops()["accumulate"](
        data, data.size, bits, width or bits, origin, slope, shift, sign, total, total.size
    )


def code_sums(data: Array, bits: int, codes: int, *, width: int | None = None) -> tuple[int, int]:
    """Return the sum of `codes` codes and that of their squares, exact below 2**31 codes."""
    sums = np.empty(2, np.int64)
    _loops()["code_sums"](data, data.size, bits, width or bits, codes, sums)
    total, squares = sums.tolist()
    return total, squares


def split_wide(codes: Array, bits: int, high: Array, low: Array) -> None:
    """Split codes of more than 8 bits in their highest 8 and the others.

    Parameters
    ----------
    codes : uint16, shape (n,)
    bits : int
        9 to 16, of which the lowest count.
    high : uint8, shape (n,)
        Receives the highest 8.
    low : uint8, shape (ceil(n * (bits - 8) / 8),)
        Receives the others, packed.
    """
    _same(codes.size, high.size)
    _loops()["split_wide"](codes, codes.size, bits, high, low, low.size)


def join_wide(high: Array, low: Array, bits: int, codes: Array) -> None:
    """Put codes together again: `split_wide` backwards."""
    _same(codes.size, high.size)
    _loops()["join_wide"](high, low, low.size, bits, codes, codes.size)


def accumulate_raw(values: Array, factor: float, sign: int, total: Array) -> None:
    """Add ``sign * round(factor * value)`` to the int64 array `total`; values are finite."""
    _same(values.size, total.size)
    _loops()["accumulate_raw"](values, factor, sign, total, total.size)


def add_scaled(base: Array, total: Array, scale: float, out: Array) -> None:
    """Write ``base + float32(total * scale)`` into `out`, which may be `base`."""
    _same(base.size, total.size, out.size)
    _loops()["add_scaled"](base, total, scale, out, out.size)


def histogram(symbols: Array, stride: int = 1) -> Array:
    """Return how often each byte occurs in every `stride`-th of a uint8 array: int64, (256,)."""
    counts = np.zeros(256, np.int64)
    _loops()["histogram"](symbols, symbols.size, stride, counts)
    return counts


def split_mode(symbols: Array, mode: int, flags: Array, others: Array) -> int:
    """Split bytes in two streams: is it another one than `mode`, and if so which.

    Parameters
    ----------
    symbols : uint8, shape (n,)
    mode : int
    flags : uint8, shape (n // 8 + 1,)
        Receives one bit a byte, lowest first: 1 for another one. One more 1 ends them, so
        that their number is known.
    others : uint8, shape (n + 1,)
        Receives the others, and rubbish after them.

    Returns
    -------
    int
        Number of others.
    """
    _same(flags.size, symbols.size // 8 + 1)
    _same(others.size, symbols.size + 1)
    count = np.zeros(1, np.int64)
    _loops()["split_mode"](symbols, symbols.size, mode, flags, others, count)
    return int(count[0])


def count_flags(flags: Array, size: int) -> int:
    """Return how many of the first `size` flags are 1.

    Raises
    ------
    ValueError
        If they are not flags of that many bytes.
    """
    count = np.zeros(1, np.int64)
    _loops()["count_flags"](flags, flags.size, size, count)
    return int(count[0])


def merge_mode(flags: Array, mode: int, others: Array, out: Array) -> None:
    """Put the bytes together again: `split_mode` backwards.

    Parameters
    ----------
    flags : uint8, shape (n // 8 + 1,)
    mode : int
    others : uint8, shape (m + 1,)
        One for each 1 among the first n flags, m in all, and one that is read, so that no
        branch decides on the read, but not used.
    out : uint8, shape (n,)
    """
    _loops()["merge_mode"](flags, flags.size, mode, others, others.size - 1, out, out.size)


def dither_classes(first: int, bits: int, key0: int, key1: int, classes: Array) -> None:
    """Write the classes that random rounding gives values, from number `first` of a tensor on.

    Parameters
    ----------
    first, bits, key0, key1 : int
        As `quantize_pack` was given them.
    classes : uint8, shape (n,)
        By the dither U, as a share of a step: which half octave below 1/2 min(U, 1 - U) is in,
        and 128 where U is below 1/2.
    """
    _loops()["dither_classes"](first, bits, key0, key1, classes, classes.size)


def past_classes(past: Array, classes: Array) -> None:
    """Write the classes that values have by what `remember` noted of them, uint8 both."""
    _same(past.size, classes.size)
    _loops()["past_classes"](past, past.size, classes)


def remember(past: Array, data: Array, bits: int, zero: int, *, width: int | None = None) -> None:
    """Note codes, of which `zero` stands for 0, in the uint8 array `past`; with 0 bits, zeros."""
    _loops()["remember"](data, data.size, bits, width or bits, zero, past, past.size)


def encode_given(codes: Array, classes: Array, zero: int, out: Array) -> int | None:
    """Write codes by their classes to `out`; return its length, or None if there is no room.

    Parameters
    ----------
    codes : uint8, shape (n,)
    classes : uint8, shape (n,)
        Below 64; the signs of those with 128 added are turned.
    zero : int
        The code that stands for 0.
    out : uint8
    """
    _same(codes.size, classes.size)
    written = np.zeros(1, np.int64)
    _loops()["encode_given"](codes, classes, codes.size, zero, out, out.size, written)
    return int(written[0]) if written[0] >= 0 else None


def decode_given(data: Array, classes: Array, zero: int, bits: int, codes: Array) -> None:
    """Read codes of at most 8 bits back: `encode_given` backwards.

    Raises
    ------
    ValueError
        If `data` is not what codes are written to.
    """
    _same(codes.size, classes.size)
    _loops()["decode_given"](data, data.size, classes, zero, bits, codes, codes.size)


@cache
def levels() -> tuple[str, ...]:
    """Return the levels of vector instructions that this processor has, the fastest first."""
    names: bytes = _library().loops_levels()
    return tuple(names.decode().split())


@cache
def at_level(level: str) -> Mapping[str, Loop]:
    """Return the loops of one of `levels`, by name."""
    return {name: partial(_called, _function(name, level)) for name in SIGNATURES}


@cache
def _loops() -> Mapping[str, Loop]:
    return at_level(levels()[0])


def _called(function: Callable[..., int], *arguments: Any) -> None:
    if function(*arguments):
        raise ValueError("codec: a buffer is shorter than its codes, or a number is out of range")


def _same(*sizes: int) -> None:
    if len(set(sizes)) > 1:
        raise ValueError(f"codec: arrays of {sizes} values, which should be as many")


def _function(name: str, level: str) -> Callable[..., int]:
    function: Any = getattr(_library(), f"{name}_{level}")
    function.argtypes = SIGNATURES[name]
    function.restype = c_int32
    return function  # type: ignore[no-any-return]


@cache
def _library() -> ctypes.CDLL:
    """Return the library.

    Raises
    ------
    FedaqError
        If it is not there, is one for another system, or of another version than this file.
    """
    mend = "in a checkout `make native` makes it; else install fedaq anew"
    try:
        library = ctypes.CDLL(str(LIBRARY))
    except OSError as error:
        raise FedaqError(f"the codec's library cannot be loaded: {error}; {mend}") from None
    library.loops_version.restype = c_int32
    library.loops_levels.restype = ctypes.c_char_p
    if library.loops_version() != VERSION:
        raise FedaqError(f"{LIBRARY} is of another version of fedaq; {mend}")
    return library
