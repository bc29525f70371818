"""The compiled inner loops of the codec, called with arrays.

LLVM compiles them from ``loops.ll``, in a process of its own (`fedaq.codec.machine_code`): the
compiler would take 80 MB of memory beside the model. What comes back is machine code that
is kept on disk, under a name that changes with the loops, LLVM and the processor, and
called through ctypes. Where that cannot be had (Linux on x86-64 and aarch64 have it), LLVM
compiles in this process. Developers write the loops in Python: ``loops/loops.py``.

All loops release the GIL. Arrays are contiguous, and those that are written to do not
overlap the others. One of codes has ``ceil(n * bits / 8)`` bytes for n values, and a slice
of a tensor starts at a multiple of `GROUP` values.
"""

import ctypes
import fcntl
import os
import platform
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from ctypes import c_double, c_float, c_int64, c_uint32
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedaq.codec import machine_code

GROUP = 8
# Values whose codes are held at once. Of values that come from memory, 4,096 would be
# quantized a third slower and 1,024 dequantized a sixth slower.
PACK_BLOCK = 1024
UNPACK_BLOCK = 4096

Array = NDArray[Any]

_getting_ready = threading.Lock()


def _read(kind: type[np.generic]) -> Any:
    return np.ctypeslib.ndpointer(kind, ndim=1, flags=("C", "A"))


def _write(kind: type[np.generic]) -> Any:
    return np.ctypeslib.ndpointer(kind, ndim=1, flags=("C", "A", "W"))


# The arguments of every loop in C.
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "statistics": (_read(np.float32), c_int64, _write(np.float32), _write(np.float64)),
    "quantize_pack": (
        _read(np.float32),
        c_int64,
        c_uint32,
        c_float,
        c_float,
        c_int64,
        c_int64,
        c_uint32,
        c_uint32,
        _write(np.uint8),
    ),
    "repack": (_read(np.uint8), c_int64, c_int64, c_int64, _write(np.uint8)),
    "unpack_dequantize": (
        _read(np.uint8),
        c_int64,
        c_double,
        c_double,
        _write(np.float32),
        c_int64,
    ),
    "unpack_accumulate": (
        _read(np.uint8),
        c_int64,
        c_int64,
        c_int64,
        c_int64,
        c_int64,
        _write(np.int64),
        c_int64,
    ),
    "code_sums": (_read(np.uint8), c_int64, c_int64, _write(np.int64)),
    "accumulate_raw": (_read(np.float32), c_double, c_int64, _write(np.int64), c_int64),
    "add_scaled": (_read(np.float32), _read(np.int64), c_double, _write(np.float32), c_int64),
    "histogram": (_read(np.uint8), c_int64, _write(np.int64)),
    "split_mode": (
        _read(np.uint8),
        c_int64,
        c_int64,
        _write(np.uint8),
        _write(np.uint8),
        _write(np.int64),
    ),
    "merge_mode": (_read(np.uint8), c_int64, _read(np.uint8), _write(np.uint8), c_int64),
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
    """
    _loops()["quantize_pack"](
        values, values.size, first, lo, inverse_step, bits, nearest, key0, key1, out
    )


def repack(data: Array, bits: int, width: int, codes: int, out: Array) -> None:
    """Pack codes that lie `bits` bits apart anew, `width` bits apart.

    Parameters
    ----------
    data : uint8, shape (ceil(n * bits / 8),)
    bits, width : int
        1 to 16; codes fit in both.
    codes : int
        ``n``.
    out : uint8, shape (ceil(n * width / 8),)
    """
    _loops()["repack"](data, bits, width, codes, out)


def unpack_dequantize(data: Array, bits: int, lo: float, step: float, out: Array) -> None:
    """Write ``float32(lo + step * code)`` for each packed code into the float32 array `out`.

    `lo` and `step` are float32 values; the arithmetic is that of float64, in which the
    product is exact.
    """
    _loops()["unpack_dequantize"](data, bits, lo, step, out, out.size)


def unpack_accumulate(
    data: Array, bits: int, origin: int, slope: int, shift: int, sign: int, total: Array
) -> None:
    """Add ``sign * (origin + round(slope * code / 2**shift))`` to the int64 array `total`.

    Halves are rounded up. `sign` is 1 or -1.
    """
    _loops()["unpack_accumulate"](data, bits, origin, slope, shift, sign, total, total.size)


def code_sums(data: Array, bits: int, codes: int) -> tuple[int, int]:
    """Return the sum of `codes` packed codes and that of their squares, exact below 2**31 codes."""
    sums = np.empty(2, np.int64)
    _loops()["code_sums"](data, bits, codes, sums)
    total, squares = sums.tolist()
    return total, squares


def accumulate_raw(values: Array, factor: float, sign: int, total: Array) -> None:
    """Add ``sign * round(factor * value)`` to the int64 array `total`; values are finite."""
    _loops()["accumulate_raw"](values, factor, sign, total, total.size)


def add_scaled(base: Array, total: Array, scale: float, out: Array) -> None:
    """Write ``base + float32(total * scale)`` into `out`, which may be `base`."""
    _loops()["add_scaled"](base, total, scale, out, total.size)


def histogram(symbols: Array) -> Array:
    """Return how often each byte occurs in a uint8 array, strided or not: int64, shape (256,)."""
    counts = np.zeros(256, np.int64)
    _loops()["histogram"](np.ascontiguousarray(symbols), symbols.size, counts)
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
    count = np.zeros(1, np.int64)
    _loops()["split_mode"](symbols, symbols.size, mode, flags, others, count)
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
    _loops()["merge_mode"](flags, mode, others, out, out.size)


def kept_in() -> Path | None:
    """Return the folder that holds the machine code for this processor; None if none does."""
    name = _file_name()
    return next((folder for folder in _cache_folders() if (folder / name).exists()), None)


def get_ready() -> None:
    """Have the loops compiled, if they are not yet, while this process does something else."""
    threading.Thread(target=_loops, daemon=True).start()


def _loops() -> dict[str, Callable[..., None]]:
    """Return the loops, ready to be called."""
    with _getting_ready:
        return _loaded()


@cache
def _loaded() -> dict[str, Callable[..., None]]:
    try:
        addresses = machine_code.load(_image())
    except machine_code.UnavailableError:
        addresses = machine_code.compile_here()
    return {
        name: ctypes.CFUNCTYPE(None, *arguments)(addresses[name])
        for name, arguments in SIGNATURES.items()
    }


def _image() -> bytes:
    """Return the loops' machine code, from disk or fresh from the compiler."""
    name = _file_name()
    for folder in _cache_folders():
        with suppress(OSError):
            return _kept(folder / name)
    return _compile()


def _file_name() -> str:
    return f"loops-{_fingerprint()}.bin"


def _kept(place: Path) -> bytes:
    """Return what `place` holds; if it holds nothing yet, compile and keep it there.

    Of several processes that start together, one compiles and the others wait for it.
    """
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not place.exists():
                partial = place.with_suffix(".part")
                partial.write_bytes(_compile())
                partial.replace(place)
    return place.read_bytes()


def _compile() -> bytes:
    """Compile in a process of its own.

    Raises
    ------
    UnavailableError
        If it fails.
    """
    try:
        return subprocess.run(
            [sys.executable, "-P", "-m", "fedaq.codec.machine_code"],
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        raise machine_code.UnavailableError from None


def _cache_folders() -> Iterator[Path]:
    """Yield where machine code may be kept: beside the byte code, or in the user's cache."""
    yield Path(__file__).with_name("__pycache__")
    with suppress(RuntimeError):  # a user without a home
        yield Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fedaq"


def _fingerprint() -> str:
    """Return a digest of all that the machine code depends on."""
    digest = blake2b(digest_size=8)
    for file in ("loops.ll", "machine_code.py", "kernels.py"):
        digest.update(Path(__file__).with_name(file).read_bytes())
    facts = [version("llvmlite"), platform.machine(), *_processor()]
    digest.update("\n".join(facts).encode())
    return digest.hexdigest()


def _processor() -> list[str]:
    """Return what tells a processor's kind, without its state."""
    kinds = ("model name", "flags", "CPU implementer", "CPU part", "Features")  # x86 and ARM
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return sorted({line for line in lines if line.startswith(kinds)})
    return []
