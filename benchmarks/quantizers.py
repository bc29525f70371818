"""Error per bit actually sent of many quantizers, on the updates and weights of a recorded run.

    python benchmarks/quantizers.py
    python benchmarks/quantizers.py --task fashion-mnist --data DATA --rounds 40 \
        --recording runs/recording --picture docs/research/quantizers.png

Trains with ``fp32``, keeps every payload, and takes the clients'
updates, the weights and the differences of successive models from an early, a middle and the
last round. Each tensor is coded on its own. Errors are mean squares in units of the tensor's
variance, bits are per value; both are means over all values. docs/research/quantizers.md tells the
methods and the findings.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from math import erf, exp, gamma, inf, log2, pi, sqrt
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator
from numpy.random import Generator
from numpy.typing import NDArray
from rich.table import Table

from fedaq.cli.inspection import read_payload
from fedaq.codec.payload import TensorCode
from fedaq.codec.quantizer import Floats, Range
from fedaq.process.terminal import console
from fedaq_lab.local import run_local

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Codes = NDArray[np.int64]
Sizes = NDArray[np.float64]
# Of a panel: least and greatest bits, least and greatest error.
Limits = tuple[float, float, float, float]

CLIENTS = 10
KINDS = ("updates", "weights", "differences")
EARLY = 3
# Rounds over which the updates of all clients are summed.
SUMMED_ROUNDS = 10

WIDTHS = range(1, 9)
EDEN_WIDTHS = (1, 2, 3, 4)
BLOCKS = (1024, 4096, 16384, 65536)
RATIOS = tuple(0.25 * 2 ** (k / 2) for k in range(17))
COARSE_RATIOS = (0.5, 1.0, 2.0, 4.0, 8.0)
SUM_RATIOS = (1.0, 2.0, 4.0, 8.0, 16.0)
REACHES = np.geomspace(0.5, 16, 21)
RATES = (0.1, 0.2, 0.5, 1.0, 2.0, 3.0)
# Packed codes and their headers take a little more than whole bits.
MEAN_RATES = (0.2, 0.5, 1.05, 2.05, 3.05)
SUM_RATES = (0.25, 0.35, 0.5, 1.0, 1.5, 2.0)

HEADER_BITS = 8 * TensorCode(1, Range(0.0, 1.0)).header_bytes
TABLE_BITS_PER_SYMBOL = 16
# Of a block: a range of its own, or a step.
BLOCK_RANGE_BITS = 64
BLOCK_STEP_BITS = 16
# Of a block's deviation next to the largest of its tensor; some blocks are constant.
SMALLEST_SCALE = np.float32(1e-3)
CLASSES = 16
# Tensors whose length is predicted; shorter ones are mostly header.
LONG = 1000


# ---------------------------------------------------------------- what was recorded


@dataclass(frozen=True)
class Sample:
    """A tensor that travels, and what is known of it before.

    `earlier` is the same tensor of the same sender one round before. `energy` is what the last
    difference of the models, which both ends hold, leads one to expect of each value's size.
    """

    values: Floats
    earlier: Floats
    energy: Sizes


@dataclass(frozen=True)
class Recording:
    """A run's folder of payloads, all raw."""

    payloads: Path

    @cached_property
    def rounds(self) -> int:
        return len(list(self.payloads.glob("round-*-server.payload")))

    @property
    def measured(self) -> tuple[int, ...]:
        """An early, a middle and the last round."""
        return EARLY, self.rounds // 2, self.rounds

    @cached_property
    def clients(self) -> tuple[str, ...]:
        names = (path.stem.split("-", 2)[2] for path in self.payloads.glob("round-0001-*"))
        return tuple(sorted(set(names) - {"server"}))

    @cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        path = self._path(1, "server")
        return tuple(t.shape for t in read_payload(path, path.read_bytes()).header.spec.tensors)

    def tensors(self, number: int, sender: str) -> list[Floats]:
        path = self._path(number, sender)
        captured = read_payload(path, path.read_bytes())
        return list(captured.header.spec.split(captured.values()))

    def difference(self, number: int) -> list[Floats]:
        """Return the model of a round less that of the round before."""
        now, before = self.tensors(number, "server"), self.tensors(number - 1, "server")
        return [a - b for a, b in zip(now, before, strict=True)]

    def samples(self, kind: str) -> list[Sample]:
        """Return one client's updates, weights or differences of the measured rounds.

        Tensors whose values are all the same are left out.
        """
        sender, lag = (self.clients[0], 0) if kind == "updates" else ("server", 1)
        found: list[Sample] = []
        for number in self.measured:
            now, before = (self._values(kind, number - k, sender) for k in (0, 1))
            energies = map(expected_energy, self.difference(number - lag), self.shapes)
            found += map(Sample, now, before, energies)
        return [s for s in found if s.values.std() > 0 and s.earlier.std() > 0]

    def all_clients(self) -> list[list[Floats]]:
        """Return the updates of all clients by measured round and tensor."""
        return [
            list(updates)
            for number in self.measured
            for updates in zip(*(self.tensors(number, c) for c in self.clients), strict=True)
            if all(x.std() > 0 for x in updates)
        ]

    def _values(self, kind: str, number: int, sender: str) -> list[Floats]:
        return self.difference(number) if kind == "differences" else self.tensors(number, sender)

    def _path(self, number: int, sender: str) -> Path:
        return self.payloads / f"round-{number:04}-{sender}.payload"


def expected_energy(difference: Floats, shape: tuple[int, ...]) -> Sizes:
    """Return the product of row and column energies of a matrix, else the values' squares."""
    squares = difference.astype(np.float64) ** 2
    if len(shape) < 2:
        return squares
    matrix = squares.reshape(shape[0], -1)
    return np.outer(matrix.mean(1), matrix.mean(0)).ravel()


def record(task: str, data: Path | None, rounds: int, folder: Path) -> None:
    run_local(
        config=None,
        out=folder,
        flags={
            "task": task, "data": data, "clients": CLIENTS, "rounds": rounds, "scheme": "fp32",
        },
        assignments=["capture=true"],
    )  # fmt: skip


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


# How methods are drawn: the first of these that is part of the name.
COLORS = {
    "EDEN": "tab:purple",
    "stochastic": "tab:red",
    "dither": "tab:blue",
    "nearest, shifted": "tab:olive",
    "nearest": "tab:green",
    "dead zone": "tab:brown",
}
TICKS = (0.05, 0.1, 0.2, 0.5, 1, 2, 3, 4, 6, 8)
MARKERS = {
    "rotation": "x",
    "blocks of": "s",
    "block steps": "D",
    "block tables": "+",
    "zstandard": "^",
    "from lo": "v",
    "min-max": "v",
    "best reach": "o",
    "feedback": "o",
    "b + 2": "1",
    "": ".",
}


# Methods that are shown for the mean of all clients.
AVERAGED = (
    "stochastic, b + 2", "dither, b + 2", "rotation, dither, b + 2", "EDEN",
    "stochastic", "dither", "nearest", "dead zone 0.6",
)  # fmt: skip
# Those that are summed over rounds, and whether what is lost is added to the next update.
SUMMED: tuple[tuple[str, Coder, bool], ...] = (
    ("stochastic", coded(stochastic), False),
    ("dither", coded(dithered), False),
    ("nearest", coded(nearest), False),
    ("dither, feedback", coded(dithered), True),
    ("nearest, feedback", coded(nearest), True),
    ("dead zone 0.6, feedback", coded(dead_zone(0.6)), True),
)


# ---------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Point:
    """Bits per value and squared errors in variances; `bias` does not average out over draws."""

    setting: float
    bits: float
    error: float
    bias: float = 0.0


@dataclass(frozen=True)
class Curve:
    """What one method did with all its settings."""

    method: Method
    points: tuple[Point, ...]

    def error_at(self, rate: float) -> float | None:
        """Return the error at a rate, between the points next to it, or None beyond them."""
        rates, errors = zip(*sorted((p.bits, p.error) for p in self.points), strict=True)
        if not rates[0] <= rate <= rates[-1]:
            return None
        return float(2 ** np.interp(rate, rates, np.log2(errors)))


def measure(method: Method, tensors: Sequence[Floats]) -> Curve:
    points = (measure_setting(method.coder, setting, tensors) for setting in method.settings)
    return Curve(method, tuple(points))


def measure_setting(coder: Coder, setting: float, tensors: Sequence[Floats]) -> Point:
    """Code everything twice: what the two errors have in common is bias."""
    rng = np.random.default_rng(1)
    bits = error = bias = 0.0
    for x in tensors:
        first, second = coder(x, setting, rng), coder(x, setting, rng)
        a, b = (first.values - x).astype(float), (second.values - x).astype(float)
        variance = float(x.var())
        bits += (first.bits + second.bits) / 2
        error += float(a @ a + b @ b) / 2 / variance
        bias += float(a @ b) / variance
    count = sum(x.size for x in tensors)
    return Point(setting, bits / count, error / count, bias / count)


def measure_mean(method: Method, by_client: Sequence[Sequence[Floats]]) -> Curve:
    """Measure the error of the mean of all clients' updates, in variances of the true mean."""
    points = (mean_setting(method.coder, setting, by_client) for setting in method.settings)
    return Curve(method, tuple(points))


def mean_setting(coder: Coder, setting: float, by_client: Sequence[Sequence[Floats]]) -> Point:
    rng = np.random.default_rng(1)
    bits = error = 0.0
    for updates in by_client:
        sent = [coder(x, setting, rng) for x in updates]
        truth = np.mean(updates, axis=0, dtype=float)
        miss = np.mean([s.values for s in sent], axis=0, dtype=float) - truth
        bits += float(np.mean([s.bits for s in sent]))
        error += float(miss @ miss) / float(truth.var())
    count = sum(updates[0].size for updates in by_client)
    return Point(setting, bits / count, error / count)


def measure_sum(recording: Recording, method: Method, *, feedback: bool) -> Curve:
    """Measure the error of the sum of all mean updates, in variances of the true sum.

    With feedback a client adds to its update what rounding took from those before.
    """
    points = (
        sum_setting(recording, method.coder, setting, feedback=feedback)
        for setting in method.settings
    )
    return Curve(method, tuple(points))


def sum_setting(recording: Recording, coder: Coder, ratio: float, *, feedback: bool) -> Point:
    rng = np.random.default_rng(1)
    rounds = min(SUMMED_ROUNDS, recording.rounds)
    sizes = [x.size for x in recording.tensors(1, "server")]
    truth = [np.zeros(size) for size in sizes]
    miss = [np.zeros(size) for size in sizes]
    bits = 0.0
    for client in recording.clients:
        residuals = [np.zeros(size, np.float32) for size in sizes]
        for number in range(1, rounds + 1):
            for t, x in enumerate(recording.tensors(number, client)):
                y = x + residuals[t]
                # The coder measures its step in deviations of what it gets.
                result = coder(y, ratio * float(x.std() / y.std()), rng)
                if feedback:
                    residuals[t] = y - result.values
                truth[t] += x
                miss[t] += result.values - x
                bits += result.bits
    count = sum(sizes)
    error = sum(float(m @ m) / float(t.var()) for m, t in zip(miss, truth, strict=True))
    return Point(ratio, bits / count / rounds / len(recording.clients), error / count)


# ---------------------------------------------------------------- predicting lengths


def normal_shape(x: Floats) -> float:
    """Return the exponent of the generalised normal distribution with x's mean size."""
    wanted = float(np.abs(x).mean()) ** 2 / float(np.square(x, dtype=float).mean())
    low, high = 0.2, 8.0
    for _ in range(40):
        middle = (low + high) / 2
        found = gamma(2 / middle) ** 2 / (gamma(1 / middle) * gamma(3 / middle))
        low, high = (middle, high) if found < wanted else (low, middle)
    return low


def draw(shape: float, count: int) -> Floats:
    """Return values with deviation 1: shape 2 is normal, 1 is Laplace."""
    rng = np.random.default_rng(1)
    sizes = rng.gamma(1 / shape, 1, count) ** (1 / shape)
    values = np.where(rng.random(count) < 0.5, -sizes, sizes)
    return (values / sqrt(gamma(3 / shape) / gamma(1 / shape))).astype(np.float32)


def length(x: Floats, step: float, rounding: Rounding) -> float:
    return entropy_bits(rounding(x / np.float32(step), np.random.default_rng(1))[0])


def predictions(sample: Sample, ratio: float, rounding: Rounding) -> dict[str, float]:
    """Return the length that each predictor expects of a tensor at a step."""
    x, before = sample.values, sample.earlier
    deviation, then = float(x.std()), float(before.std())
    step = ratio * deviation
    last = length(before, step, rounding)
    mine, old = normal_shape(x), normal_shape(before)
    fitted = length(draw(mine, x.size), ratio, rounding)
    return {
        "normal": length(draw(2.0, x.size), ratio, rounding),
        "Laplace": length(draw(1.0, x.size), ratio, rounding),
        "with mean size": fitted,
        "last round, same step": last,
        "last round, same ratio": length(before, ratio * then, rounding),
        "mean size and last": fitted * last / length(draw(old, x.size), step / then, rounding),
    }


def prediction_errors(
    samples: Sequence[Sample], ratio: float, rounding: Rounding
) -> tuple[float, dict[str, float]]:
    """Return the bits per value, and each predictor's mean error as a share of the length."""
    long = [s for s in samples if s.values.size >= LONG]
    actual = [length(s.values, ratio * float(s.values.std()), rounding) for s in long]
    rows = [predictions(s, ratio, rounding) for s in long]
    errors = {
        name: sum(abs(row[name] - true) for row, true in zip(rows, actual, strict=True))
        / sum(actual)
        for name in rows[0]
    }
    return sum(actual) / sum(s.values.size for s in long), errors


def context_bits(samples: Sequence[Sample], ratio: float) -> dict[str, float]:
    """Return bits per value of nearest rounding with tables for classes known in several ways."""
    totals = dict.fromkeys(("one table", "blocks of 64", "last difference", "own last"), 0.0)
    long = [s for s in samples if s.values.size >= LONG]
    for s in long:
        codes, _ = nearest(s.values / np.float32(ratio * s.values.std()), np.random.default_rng(1))
        totals["one table"] += entropy_bits(codes)
        totals["blocks of 64"] += block_tables(64)(codes)
        totals["last difference"] += class_bits(codes, classes(s.energy))
        totals["own last"] += class_bits(codes, classes(np.abs(s.earlier, dtype=float)))
    count = sum(s.values.size for s in long)
    return {name: bits / count for name, bits in totals.items()}


# ---------------------------------------------------------------- showing


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def table_of(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title)
    table.add_column(headings[0])
    for heading in headings[1:]:
        table.add_column(heading, justify="right")
    return table


def packed_table(kind: str, curves: Sequence[Curve]) -> Table:
    """Show errors at whole bits; `more` is what side information adds to four bits."""
    table = table_of(
        f"{kind}, packed: error at b bits",
        ("method", *map(str, WIDTHS), "more", "bias, b 2", "b 4"),
    )
    for curve in curves:
        points = {int(point.setting): point for point in curve.points}
        table.add_row(
            curve.method.name,
            *(number(points[b].error) if b in points else "-" for b in WIDTHS),
            f"{points[4].bits - 4:.3f}",
            *(f"{max(points[b].bias / points[b].error, 0):.0%}" for b in (2, 4)),
        )
    return table


def rate_table(title: str, curves: Sequence[Curve], rates: Sequence[float]) -> Table:
    table = table_of(f"{title}: error at a rate", ("method", *(f"{rate:g}" for rate in rates)))
    table.add_row("(a normal value's limit)", *(number(4.0**-rate) for rate in rates))
    for curve in curves:
        table.add_row(curve.method.name, *(number(curve.error_at(rate)) for rate in rates))
    return table


def reach_table(kinds: dict[str, list[Floats]]) -> Table:
    """Show the one reach for all tensors with the least error, and what one each would gain."""
    table = table_of(
        "best reach in deviations (error less with a reach for each tensor)",
        ("kind, rounding", *map(str, WIDTHS)),
    )
    for kind, tensors in kinds.items():
        for rounding in MODES:
            cells = []
            for bits in WIDTHS:
                errors = np.array([
                    [reach_error(x, r, bits, rounding) / x.var() for r in REACHES]
                    for x in tensors
                ])  # fmt: skip
                together = errors.sum(axis=0)
                gain = 1 - errors.min(axis=1).sum() / together.min()
                cells.append(f"{REACHES[together.argmin()]:.1f} ({gain:.0%})")
            table.add_row(f"{kind}, {rounding.__name__}", *cells)
    return table


def prediction_table(samples: dict[str, list[Sample]]) -> Table:
    names = (
        "normal", "Laplace", "with mean size", "last round, same step", "last round, same ratio",
        "mean size and last",
    )  # fmt: skip
    table = table_of("error of the predicted length", ("kind, rounding", "step", "bits", *names))
    for kind, found in samples.items():
        for rounding in (dithered, nearest):
            for ratio in COARSE_RATIOS:
                bits, errors = prediction_errors(found, ratio, rounding)
                table.add_row(
                    f"{kind}, {rounding.__name__}",
                    f"{ratio:g}",
                    f"{bits:.3f}",
                    *(f"{errors[name]:.1%}" for name in names),
                )
    return table


def context_table(samples: dict[str, list[Sample]]) -> Table:
    table = table_of(
        "bits per value, nearest, with tables for classes known from",
        ("kind", "step", "one table", "blocks of 64", "last difference", "own last"),
    )
    for kind in ("updates", "differences"):
        for ratio in COARSE_RATIOS:
            bits = context_bits(samples[kind], ratio)
            table.add_row(kind, f"{ratio:g}", *(f"{value:.3f}" for value in bits.values()))
    return table


def first_match(name: str, choices: dict[str, str]) -> str:
    return next(value for part, value in choices.items() if part in name)


def draw_panel(axes: Axes, title: str, curves: Sequence[Curve], limits: Limits) -> None:
    for curve in curves:
        name = curve.method.name
        bits, errors = zip(*sorted((p.bits, p.error) for p in curve.points), strict=True)
        axes.plot(
            bits,
            errors,
            color=first_match(name, COLORS),
            marker=first_match(name, MARKERS),
            linestyle="--" if "rotation" in name or "from lo" in name else "-",
            linewidth=1.2,
            markersize=5,
            label=name,
        )
    rates = np.linspace(0.05, 9, 400)
    axes.plot(rates, 4.0**-rates, "k", linewidth=2, label="limit of a normal value, $2^{-2R}$")
    axes.set_title(title)
    axes.set_xlabel("bits per value")
    axes.set_ylabel("error / variance")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(*limits[:2])
    axes.set_ylim(*limits[2:])
    ticks = [tick for tick in TICKS if limits[0] <= tick <= limits[1]]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.3)


def picture(kinds: dict[str, list[Curve]], more: dict[str, list[Curve]], path: Path) -> None:
    """Draw packed codes above coded ones, a column for each kind, and clients together below."""
    figure, grid = plt.subplots(3, 3, figsize=(21, 23), layout="constrained")
    for column, (kind, curves) in enumerate(kinds.items()):
        fixed = [c for c in curves if c.method.packed]
        free = [c for c in curves if not c.method.packed]
        draw_panel(grid[0, column], f"{kind}, packed", fixed, (0.9, 9, 5e-7, 100))
        draw_panel(grid[1, column], f"{kind}, entropy-coded", free, (0.05, 4, 3e-3, 10))
    for axes, (title, curves) in zip(grid[2], more.items(), strict=False):
        draw_panel(axes, title, curves, (0.05, 9, 1e-5, 10))
    for axes in (grid[0, 0], grid[1, 0], grid[2, 0], grid[2, 1]):
        axes.legend(fontsize=10, loc="lower left")
    grid[2, 2].axis("off")
    figure.savefig(path, dpi=70)


def study(recording: Recording, path: Path | None) -> None:
    samples = {kind: recording.samples(kind) for kind in KINDS}
    kinds = {kind: [s.values for s in found] for kind, found in samples.items()}
    panels: dict[str, list[Curve]] = {}
    for kind, tensors in kinds.items():
        curves = [measure(method, tensors) for method in methods()]
        console.print(
            packed_table(kind, [c for c in curves if c.method.packed]),
            rate_table(f"{kind}, coded", [c for c in curves if not c.method.packed], RATES),
        )
        panels[kind] = curves
    by_client = recording.all_clients()
    means = [measure_mean(method, by_client) for method in methods() if method.name in AVERAGED]
    mean_title = f"mean of {CLIENTS} updates"
    console.print(rate_table(mean_title, means, MEAN_RATES))
    sums = [
        measure_sum(recording, Method(name, coder, SUM_RATIOS, packed=False), feedback=feedback)
        for name, coder, feedback in SUMMED
    ]
    sum_title = f"sum of {min(SUMMED_ROUNDS, recording.rounds)} mean updates"
    console.print(rate_table(sum_title, sums, SUM_RATES))
    console.print(reach_table(kinds), prediction_table(samples), context_table(samples))
    if path is not None:
        picture(panels, {mean_title: means, sum_title: sums}, path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Error per bit of quantizers.")
    parser.add_argument("--task", default="digits")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the task's data")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument(
        "--recording", type=Path, metavar="DIR", help="keep the recording, or use it if it is there"
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the curves")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.recording or Path(temporary) / "recording"
        if not folder.exists():
            record(options.task, options.data, options.rounds, folder)
        study(Recording(folder / "payloads"), options.picture)


if __name__ == "__main__":
    main()
