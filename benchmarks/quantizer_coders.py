"""Quantizers and coders that are compared: rounding, lengths of codes, and whole methods."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import erf, exp, inf, log2, pi, sqrt

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from fedaq.codec.payload import TensorCode
from fedaq.codec.quantizer import Floats, Range

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


Codes = NDArray[np.int64]
Sizes = NDArray[np.float64]
WIDTHS = range(1, 9)
EDEN_WIDTHS = (1, 2, 3, 4)
BLOCKS = (1024, 4096, 16384, 65536)
RATIOS = tuple(0.25 * 2 ** (k / 2) for k in range(17))
REACHES = np.geomspace(0.5, 16, 21)
HEADER_BITS = 8 * TensorCode(1, Range(0.0, 1.0)).header_bytes
TABLE_BITS_PER_SYMBOL = 16
# Of a block: a range of its own, or a step.
BLOCK_RANGE_BITS = 64
BLOCK_STEP_BITS = 16
# Of a block's deviation next to the largest of its tensor; some blocks are constant.
SMALLEST_SCALE = np.float32(1e-3)
CLASSES = 16

# ---------------------------------------------------------------- rounding to whole codes

# Turns values in steps into codes and what a receiver makes of them, in steps.
Rounding = Callable[[Floats, Generator], tuple[Codes, Floats]]


def whole(values: Floats) -> Codes:
    return values.astype(np.int64)


def uniform(count: int, rng: Generator) -> Floats:
    return rng.random(count, np.float32)


def stochastic(t: Floats, rng: Generator) -> tuple[Codes, Floats]:
    codes = np.floor(t + uniform(t.size, rng))
    return whole(codes), codes


def dithered(t: Floats, rng: Generator) -> tuple[Codes, Floats]:
    """Round as `stochastic`; the receiver knows the random numbers and takes them off."""
    u = uniform(t.size, rng)
    codes = np.floor(t + u)
    return whole(codes), codes - u + np.float32(0.5)


def nearest(t: Floats, _: Generator) -> tuple[Codes, Floats]:
    codes = np.rint(t)
    return whole(codes), codes


def dead_zone(threshold: float) -> Rounding:
    """Round up from `threshold` of a step on; receivers shift values by their mean error."""

    def round_(t: Floats, _: Generator) -> tuple[Codes, Floats]:
        size = np.abs(t)
        codes = np.floor(size + np.float32(1 - threshold))
        kept = codes > 0
        shift = np.float32(np.mean(size[kept] - codes[kept])) if kept.any() else np.float32(0)
        sign = np.sign(t)
        return whole(sign * codes), sign * np.where(kept, codes + shift, 0).astype(np.float32)

    return round_


# ---------------------------------------------------------------- lengths of codes


def entropy_bits(codes: Codes) -> float:
    """Return the order-0 entropy of all codes and a table of the symbols used."""
    counts = np.bincount(codes - codes.min())
    used = counts[counts > 0]
    information = -(used * np.log2(used / codes.size)).sum()
    return float(information) + TABLE_BITS_PER_SYMBOL * len(used)


def zstandard_bits(codes: Codes) -> float:
    """Return the least that zstandard makes of 1, 2, 4 or 8 codes to a byte, at level 1."""
    shifted = codes - codes.min()
    needed = int(shifted.max()).bit_length()
    if needed > 8:
        return 8.0 * len(zstd.compress(shifted.astype("<u2").tobytes(), 1))
    aligned = (several_to_a_byte(shifted, width) for width in (1, 2, 4, 8) if width >= needed)
    return 8.0 * min(len(zstd.compress(data.tobytes(), 1)) for data in aligned)


def several_to_a_byte(codes: Codes, width: int) -> NDArray[np.uint8]:
    count = 8 // width
    padded = np.zeros((-(-codes.size // count), count), np.uint8)
    padded.ravel()[: codes.size] = codes
    shifts = np.arange(count, dtype=np.uint8) * np.uint8(width)
    return np.asarray(np.bitwise_or.reduce(padded << shifts, axis=1), np.uint8)


# ---------------------------------------------------------------- methods


@dataclass(frozen=True)
class Coded:
    """A tensor as it was sent: what receivers decode, and the bits it took."""

    values: Floats
    bits: float


# Codes a tensor with one setting: bits per code, or the step in deviations.
Coder = Callable[[Floats, float, Generator], Coded]


@dataclass(frozen=True)
class Method:
    """A way to code tensors and the settings that make its curve."""

    name: str
    coder: Coder
    settings: Sequence[float]
    packed: bool


def range_error(x: Floats, lo: float, hi: float, steps: int, mode: int) -> float:
    """Return the expected squared error of a range: 0 stochastic, 1 dithered, 2 nearest."""
    step = (hi - lo) / steps
    inside = np.clip(x.astype(np.float64), lo, hi)
    part = (inside - lo) / step
    part -= np.floor(part)
    noise = (part * (1 - part), np.full(x.size, 1 / 12), np.minimum(part, 1 - part) ** 2)[mode]
    return float(np.sum(noise * step * step + (x - inside) ** 2))


MODES: dict[Rounding, int] = {stochastic: 0, dithered: 1, nearest: 2}
# The reach of a range in deviations, for a tensor and bits.
Reach = Callable[[Floats, int, Rounding], float]


def full(_: Floats, __: int, ___: Rounding) -> float:
    return inf


def two_more(_: Floats, bits: int, __: Rounding) -> float:
    return bits + 2.0


def best(x: Floats, bits: int, rounding: Rounding) -> float:
    return float(REACHES[np.argmin([reach_error(x, r, bits, rounding) for r in REACHES])])


def reach_error(x: Floats, reach: float, bits: int, rounding: Rounding) -> float:
    lo, hi = clipped(x, reach)
    return float(range_error(x, lo, hi, 2**bits - 1, MODES[rounding]))


def clipped(x: Floats, reach: float) -> tuple[float, float]:
    lo, hi = float(x.min()), float(x.max())
    if reach == inf:
        return lo, hi
    mean, deviation = float(x.mean()), float(x.std())
    return max(lo, mean - reach * deviation), min(hi, mean + reach * deviation)


def packed(rounding: Rounding, reach: Reach) -> Coder:
    """Code with a fixed number of bits over a range."""

    def code(x: Floats, bits: float, rng: Generator) -> Coded:
        if x.min() == x.max():
            return Coded(x, HEADER_BITS)
        lo, hi = clipped(x, reach(x, int(bits), rounding))
        step = (hi - lo) / (2 ** int(bits) - 1)
        t = ((np.clip(x, lo, hi) - lo) / step).astype(np.float32)
        _, values = rounding(t, rng)
        return Coded((values * step + lo).astype(np.float32), x.size * bits + HEADER_BITS)

    return code


def coded(
    rounding: Rounding,
    length: Callable[[Codes], float] = entropy_bits,
    *,
    from_lo: bool = False,
) -> Coder:
    """Code with steps of any size and an entropy coder; one code is 0, or the least value."""

    def code(x: Floats, ratio: float, rng: Generator) -> Coded:
        step = np.float32(ratio * x.std())
        origin = np.float32(x.min() if from_lo else 0)
        codes, values = rounding((x - origin) / step, rng)
        return Coded(values * step + origin, length(codes) + HEADER_BITS)

    return code


def split(x: Floats, size: int) -> list[Floats]:
    return [x[start : start + size] for start in range(0, x.size, size)]


def blocked(coder: Coder, size: int) -> Coder:
    """Give every block of values a range of its own."""

    def code(x: Floats, setting: float, rng: Generator) -> Coded:
        parts = [coder(part, setting, rng) for part in split(x, size)]
        bits = sum(part.bits - HEADER_BITS + BLOCK_RANGE_BITS for part in parts)
        return Coded(np.concatenate([part.values for part in parts]), bits + HEADER_BITS)

    return code


def block_steps(coder: Coder, size: int) -> Coder:
    """Give every block of values a step of its own, in proportion to its deviation."""

    def code(x: Floats, ratio: float, rng: Generator) -> Coded:
        scales = np.array([part.std() for part in split(x, size)], np.float32)
        scales = np.maximum(scales, SMALLEST_SCALE * scales.max())
        each = np.repeat(scales, size)[: x.size]
        # The coder measures its step in deviations of what it gets.
        normal = x / each
        result = coder(normal, ratio / float(normal.std()), rng)
        return Coded(result.values * each, result.bits + BLOCK_STEP_BITS * len(scales))

    return code


def classes(sizes: Sizes) -> Codes:
    """Sort by size into classes of equal count."""
    ranks = np.argsort(np.argsort(sizes, kind="stable"))
    return ranks * CLASSES // len(sizes)


def class_bits(codes: Codes, each: Codes) -> float:
    """Return the length when every class of values has a table of its own."""
    return sum(entropy_bits(codes[each == k]) for k in np.unique(each))


def block_tables(size: int) -> Callable[[Codes], float]:
    """Sort blocks of codes by their mean size; the class of each block is sent."""

    def length(codes: Codes) -> float:
        starts = np.arange(0, codes.size, size)
        if len(starts) < CLASSES:
            return entropy_bits(codes)
        means = np.add.reduceat(np.abs(codes), starts).astype(np.float64)
        each = np.repeat(classes(means), size)[: codes.size]
        return class_bits(codes, each) + log2(CLASSES) * len(starts)

    return length


def hadamard(x: Floats) -> None:
    """Transform 2**k values in place; doing it twice gives them back."""
    half = 1
    while half < x.size:
        pairs = x.reshape(-1, 2, half)
        a, b = pairs[:, 0].copy(), pairs[:, 1].copy()
        pairs[:, 0], pairs[:, 1] = a + b, a - b
        half *= 2
    x /= np.float32(np.sqrt(x.size))


def powers(count: int) -> list[slice]:
    """Cut a length into powers of two, so that nothing is padded."""
    ends = np.cumsum([0] + [1 << k for k in reversed(range(count.bit_length())) if count >> k & 1])
    return [slice(a, b) for a, b in pairwise(ends.tolist())]


def rotate(x: Floats, signs: Floats) -> Floats:
    out = x * signs
    for part in powers(x.size):
        hadamard(out[part])
    return out


def rotate_back(x: Floats, signs: Floats) -> Floats:
    out = x.copy()
    for part in powers(x.size):
        hadamard(out[part])
    return out * signs


def random_signs(count: int, rng: Generator) -> Floats:
    return np.where(uniform(count, rng) < 0.5, np.float32(-1), np.float32(1))


def rotated(coder: Coder) -> Coder:
    """Turn the values by a random rotation that both sides know before they are coded."""

    def code(x: Floats, setting: float, rng: Generator) -> Coded:
        signs = random_signs(x.size, rng)
        result = coder(rotate(x, signs), setting, rng)
        return Coded(rotate_back(result.values, signs), result.bits)

    return code


@cache
def lloyd_max(bits: int) -> tuple[Floats, Floats]:
    """Return thresholds and values of the best quantizer of a normal distribution."""
    centers = np.linspace(-2, 2, 2**bits)
    for _ in range(2000):
        edges = (centers[1:] + centers[:-1]) / 2
        density = np.array([0.0, *(exp(-(e**2) / 2) / sqrt(2 * pi) for e in edges), 0.0])
        below = np.array([0.0, *((1 + erf(e / sqrt(2))) / 2 for e in edges), 1.0])
        centers = -np.diff(density) / np.diff(below)
    return edges.astype(np.float32), centers.astype(np.float32)


def eden(length: Callable[[Codes], float] | None = None) -> Coder:
    """EDEN (arXiv 2108.08842): rotation, best points for a normal value, scale without bias."""

    def code(x: Floats, bits: float, rng: Generator) -> Coded:
        edges, centers = lloyd_max(int(bits))
        signs = random_signs(x.size, rng)
        turned = rotate(x, signs)
        codes = np.empty(x.size, np.int64)
        for part in powers(x.size):
            y = turned[part]
            energy = float(y @ y)
            normal = y * np.float32(sqrt(y.size / energy) if energy else 0)
            codes[part] = np.searchsorted(edges, normal)
            points = centers[codes[part]]
            turned[part] = points * np.float32(energy / float(y @ points) if energy else 0)
        size = x.size * bits if length is None else length(codes)
        return Coded(
            rotate_back(turned, signs), size + HEADER_BITS + 32 * (len(powers(x.size)) - 1)
        )

    return code


def methods() -> list[Method]:
    packings: dict[str, Coder] = {
        "stochastic, min-max": packed(stochastic, full),
        "stochastic, b + 2": packed(stochastic, two_more),
        "stochastic, best reach": packed(stochastic, best),
        "dither, min-max": packed(dithered, full),
        "dither, b + 2": packed(dithered, two_more),
        "dither, best reach": packed(dithered, best),
        "nearest, best reach": packed(nearest, best),
        "rotation, stochastic, b + 2": rotated(packed(stochastic, two_more)),
        "rotation, dither, b + 2": rotated(packed(dithered, two_more)),
        "rotation, dither, best reach": rotated(packed(dithered, best)),
        "rotation, nearest, best reach": rotated(packed(nearest, best)),
        **{
            f"blocks of {size:,}, dither, b + 2": blocked(packed(dithered, two_more), size)
            for size in BLOCKS
        },
    }
    codings: dict[str, Coder] = {
        "stochastic": coded(stochastic),
        "stochastic, from lo": coded(stochastic, from_lo=True),
        "dither": coded(dithered),
        "dither, from lo": coded(dithered, from_lo=True),
        "nearest": coded(nearest),
        "nearest, from lo": coded(nearest, from_lo=True),
        "nearest, shifted": coded(dead_zone(0.5)),
        "dead zone 0.6": coded(dead_zone(0.6)),
        "dead zone 0.75": coded(dead_zone(0.75)),
        "rotation, dither": rotated(coded(dithered)),
        "rotation, nearest": rotated(coded(nearest)),
        "block steps 1,024, dither": block_steps(coded(dithered), 1024),
        "block steps 1,024, nearest": block_steps(coded(nearest), 1024),
        "block tables 1,024, dead zone 0.6": coded(dead_zone(0.6), block_tables(1024)),
        "block tables 64, dead zone 0.6": coded(dead_zone(0.6), block_tables(64)),
        "zstandard, dither": coded(dithered, zstandard_bits),
        "zstandard, nearest": coded(nearest, zstandard_bits),
    }
    return [
        *(Method(name, coder, WIDTHS, packed=True) for name, coder in packings.items()),
        Method("EDEN", eden(), EDEN_WIDTHS, packed=True),
        *(Method(name, coder, RATIOS, packed=False) for name, coder in codings.items()),
        Method("EDEN, coded", eden(entropy_bits), EDEN_WIDTHS, packed=False),
    ]
