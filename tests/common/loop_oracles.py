"""The codec's loops as tests call them, and what they should give: the same in NumPy."""

import numpy as np
from bitarray import bitarray
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedaq.codec import kernels
from fedaq.codec.quantizer import Floats, Key

Codes = NDArray[np.int64]
WIDTHS = st.integers(1, 16)


def random_words(key: Key, first: int, count: int) -> NDArray[np.uint64]:
    """Return numbers `first` onward of the stream: a Weyl sequence through lowbias32."""
    low = np.uint64(2**32 - 1)
    x = (first + np.arange(count, dtype=np.uint64)) * np.uint64(0x9E3779B9)
    x = ((x + np.uint64(key.word0)) & low) ^ np.uint64(key.word1)
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor) & low
    return x ^ (x >> np.uint64(16))


def dithers(key: Key, bits: int, count: int) -> NDArray[np.float64]:
    """Return what is added to each position before it is cut off: uniform in [0, 1)."""
    scale = 2 ** (31 - bits)
    words = random_words(key, 0, count) % np.uint64(scale)
    return np.asarray(words / scale, np.float64)


def expected_codes(
    values: Floats,
    first: int,
    lo: float,
    inverse_step: float,
    bits: int,
    key: Key,
    nearest: bool = False,
) -> Codes:
    position = (values - np.float32(lo)) * np.float32(inverse_step)
    scale = 2 ** (31 - bits)
    fixed = np.trunc(position.astype(np.float64) * scale).astype(np.int64)
    dither = random_words(key, first, values.size).astype(np.int64) % scale
    if nearest:
        dither[:] = scale // 2
    return np.asarray(np.minimum((fixed + dither) // scale, 2**bits - 1))


def packed(codes: Codes, bits: int) -> bytes:
    matrix = (codes[:, None] >> np.arange(bits)) & 1
    stream = bitarray(endian="little")
    stream.pack(matrix.astype(np.uint8).tobytes())
    return stream.tobytes()


# ---- The kernels as the product calls them ----------------------------------


def quantize(
    values: Floats,
    lo: float,
    inverse_step: float,
    bits: int,
    key: Key,
    first: int = 0,
    nearest: bool = False,
) -> bytes:
    out = np.full((values.size * bits + 7) // 8, 0xA5, np.uint8)
    kernels.quantize_pack(
        values,
        first,
        lo,
        inverse_step,
        bits,
        nearest,
        key.word0,
        key.word1,
        out,
    )
    return out.tobytes()


def dequantize(data: bytes, bits: int, lo: float, step: float, count: int) -> Floats:
    out = np.full(count, np.nan, np.float32)
    kernels.unpack_dequantize(np.frombuffer(data, np.uint8), bits, lo, step, out)
    return out


def accumulate(
    data: bytes, bits: int, origin: int, slope: int, shift: int, sign: int, total: Codes
) -> None:
    kernels.unpack_accumulate(
        np.frombuffer(data, np.uint8),
        bits,
        origin,
        slope,
        shift,
        sign,
        total,
    )


def uniform(seed: int, count: int, lo: float, hi: float) -> Floats:
    part = np.random.default_rng(seed).random(count)
    return np.clip(lo + part * (hi - lo), lo, hi).astype(np.float32)


def random_codes(seed: int, count: int, bits: int) -> Codes:
    return np.random.default_rng(seed).integers(0, 2**bits, count)
